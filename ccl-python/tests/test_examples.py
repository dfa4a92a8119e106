"""The small examples, run as by a user: each in a process, killed where the example says so."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import ccl
import numpy as np
import peers
import pytest
from peers import Pipe

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
#: Far longer than anything here takes; only a hang reaches it.
HANG_SECONDS = 60


@contextmanager
def started(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", str(EXAMPLES / name), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment())
    try:
        yield process
    finally:
        process.kill()
        process.wait(HANG_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def _environment() -> dict[str, str]:
    """The environment of a script: it imports the same package as this process."""
    return {**os.environ, "PYTHONPATH": str(Path(ccl.__file__).parents[1])}


def output(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, text
    return text


def read_until(process: subprocess.Popen[str], what: str) -> re.Match[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(what, line):
            return found
    raise AssertionError(f"it ended and never said {what!r}")


def test_all_reduce() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, ExitStack() as stack:
        processes = [stack.enter_context(started("all_reduce.py", master.address)) for _ in range(3)]
        texts = {output(process) for process in processes}
    assert texts == {f"rank {rank}: 1.0 from 3 peers\n" for rank in range(3)}


def test_shared_state() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, ExitStack() as stack:
        processes = [
            stack.enter_context(started("shared_state.py", master.address, *trained))
            for trained in (["trained"], [], [])
        ]
        texts = [output(process) for process in processes]
    received = [re.sub("rank .: ", "", text) for text in texts]
    assert received == [
        "revision 1, 0.0 MB received\n",
        "revision 1, 4.0 MB received\n",
        "revision 1, 4.0 MB received\n",
    ]


def test_elastic_training_goes_on_through_a_kill_and_a_join(tmp_path: Path) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            directory = str(tmp_path / "checkpoints")
            return stack.enter_context(started("elastic.py", master.address, directory))

        first, second, doomed = start(), start(), start()
        read_until(first, r"^step \d+: 3 peers")
        doomed.kill()
        read_until(first, r"^step \d+: 2 peers")
        newcomer = start()
        step, weights = read_until(newcomer, r"^step (\d+): 3 peers, weights (\w+)").groups()
        for process in (first, second):
            assert read_until(process, rf"^step {step}: 3 peers, weights (\w+)")[1] == weights


def test_elastic_training_tells_a_process_whose_checkpoints_are_of_another_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    ccl.SharedState({"weights": np.zeros(100_000, np.float32)}, revision=5000).save(other)
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, ExitStack() as stack:

        def start(directory: Path) -> subprocess.Popen[str]:
            return stack.enter_context(started("elastic.py", master.address, str(directory)))

        first, _ = (start(tmp_path / "checkpoints") for _ in range(2))
        read_until(first, r"^step \d+: 2 peers")
        stray = start(other)
        assert stray.wait(HANG_SECONDS) == 1
        error = capfd.readouterr().err
        assert "has revision 5000" in error and f"instead of {other}" in error
        read_until(first, r"^step \d+: 2 peers")


def give_slowly(pipe: Pipe, address: str) -> None:
    """Founds a run, and sends a newcomer half of its state at once, and the rest much later."""
    weights = np.ones(100_000, np.float32)
    state = ccl.SharedState({"weights": weights}, revision=3)
    with ccl.Communicator(address, state_bytes_per_second=1000) as comm:
        comm.sync(state)
        pipe.say("sealed")
        while comm.world_size == 1:
            comm.update_topology()
        handle = comm.sync_async(state)
        while handle.progress().done_bytes < 256 << 10:
            with suppress(ccl.Timeout):
                handle.wait(0.01)
        pipe.say("half")
        handle.wait()


def test_elastic_training_begins_anew_when_the_only_source_dies(tmp_path: Path) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, ExitStack() as stack:
        [source] = stack.enter_context(peers.started(1, give_slowly, master.address))
        assert source.receive() == "sealed"
        newcomer = stack.enter_context(started("elastic.py", master.address, str(tmp_path)))
        assert source.receive() == "half"
        source.process.kill()
        read_until(newcomer, "no member has a consistent content")
        read_until(newcomer, "^step 0: 1 peers")
        read_until(newcomer, "^step 1: 1 peers")


@contextmanager
def started_master(listen: str, journal: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A master in a separate process, and its address. Sessions without it last at most 4 s."""
    arguments = f"master --listen {listen} --journal {journal} --json --rebuild-window-ms 100 "
    arguments += "--peer-timeout-ms 2000 --detach-timeout-ms 2000"
    command = [sys.executable, "-m", "ccl", *arguments.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment())
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["address"]
    finally:
        process.kill()
        process.wait(HANG_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def test_elastic_training_goes_on_from_a_checkpoint_after_all_were_killed(tmp_path: Path) -> None:
    """Members and master die at once, after the newest checkpoint; the same commands resume the run."""
    listen, journal, directory = "127.0.0.1:0", tmp_path / "run.journal", str(tmp_path / "checkpoints")
    newest = 0
    for _ in range(3):
        with ExitStack() as stack:
            _, listen = stack.enter_context(started_master(listen, journal))
            first, second = (
                stack.enter_context(started("elastic.py", listen, directory)) for _ in range(2)
            )
            step, weights = read_until(first, r"^step (\d+): 2 peers, weights (\w+)").groups()
            assert int(step) == newest
            assert read_until(second, r"^step (\d+): 2 peers, weights (\w+)").groups() == (step, weights)
            newest = int(step) + 20
            read_until(first, rf"^step {newest + 3}: ")
