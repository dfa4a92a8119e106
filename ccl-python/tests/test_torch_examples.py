"""The examples that train with torch, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
#: What each may take on two cores that have nothing else to do.
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


def test_fsdp_sites_have_the_same_shards_after_a_kill_and_a_rejoin() -> None:
    output = run_example("fsdp_sites.py")
    assert "killed a site" in output
    assert "both sites have the shards" in output
