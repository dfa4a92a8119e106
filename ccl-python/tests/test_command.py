"""The package's command: as a script on the PATH, and as ``python -m ccl``."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ccl

#: Far longer than anything here takes; only a hang reaches it.
HANG_SECONDS = 60


def _script() -> list[str]:
    script = Path(sys.executable).with_name("ccl")
    if not script.exists():
        pytest.skip("the package is not installed, only on PYTHONPATH")
    return [str(script)]


@pytest.fixture(params=["script", "module"])
def command(request: pytest.FixtureRequest) -> list[str]:
    return _script() if request.param == "script" else [sys.executable, "-m", "ccl"]


def test_it_is_the_same_version(command: list[str]) -> None:
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert (shown.returncode, shown.stdout) == (0, f"ccl {ccl.__version__}\n")


def test_a_wrong_argument_is_told(command: list[str]) -> None:
    shown = subprocess.run([*command, "demos"], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert shown.returncode == 2 and "'demo'" in shown.stderr


def test_its_own_processes_are_started(command: list[str]) -> None:
    arguments = "bench all-reduce --world 2 --sizes 4,1MiB --iters 2 --json".split()
    # Files in the current directory are not imported instead of the package.
    environment = {**os.environ, "PYTHONPATH": str(Path(ccl.__file__).parents[1])}
    ended = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=HANG_SECONDS, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["wrong"] for line in lines] == [0] * len(lines) and len(lines) >= 2


def test_ctrl_c_ends_a_master(command: list[str]) -> None:
    arguments = "master --listen 127.0.0.1:0 --new-run --json".split()
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            with ccl.Communicator(address) as communicator:
                communicator.barrier()
            process.send_signal(signal.SIGINT)
            assert process.wait(HANG_SECONDS) == 0
        finally:
            process.kill()
