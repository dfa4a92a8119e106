"""The examples that train with torch, run as by a user."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
#: How long each may take on two idle cores.
SECONDS = 180


def run_example(name: str) -> str:
    command = [sys.executable, str(EXAMPLES / name)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return ended.stdout


def test_ddp_trains_on_through_a_kill_and_a_join() -> None:
    output = run_example("ddp_churn.py")
    assert "killed the first worker" in output
    assert "all 3 workers have the weights" in output


def test_torchft_heals_a_killed_replica() -> None:
    pytest.importorskip("torchft", reason="torchft is not installed; `make test-torch` says why")
    output = run_example("torchft_ddp.py")
    assert re.search(r"killed the first replica\n(.*\n)*step \d+ replica 1 replicas 1 ", output)
    assert "both replicas have the weights" in output


def test_fsdp_sites_lose_a_process_or_all_and_come_back_whole() -> None:
    output = run_example("fsdp_sites.py")
    # Each kill of one process, of either shard, ends the other process of its site too.
    end = r"^shard (\d) ends: this peer was evicted from the run: peer \d+, of the same unit, was lost"
    mates = re.findall(end, output, re.M)
    assert mates == ["1", "0"]
    assert re.findall(r"^killed (\d) of 2", output, re.M) == ["1", "1", "2"]
    for joins in range(3):
        for shard in range(2):
            alone = re.findall(rf"^step \d+ shard {shard} sites 1 joins {joins} ", output, re.M)
            assert alone, f"the other site trains on after kill {joins + 1}"
    assert "both sites have the shards" in output
