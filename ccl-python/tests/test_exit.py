"""The interpreter ends while threads of the library call into it."""

import subprocess
import sys

import pytest
from peers import HANG_SECONDS

#: The callback is running when the main thread ends.
TOLD_LATE = """
import threading, time
import ccl, numpy

begun = threading.Event()

def tell():
    begun.set()
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    print("told", flush=True)

master = ccl.Master(listen="127.0.0.1:0", new_run=True)
communicator = ccl.Communicator(master.address)
values = numpy.ones(1000)
call = communicator.{call}
call.add_done_callback(tell)
begun.wait()
"""

#: Many calls end while the interpreter ends.
TOLD_OFTEN = """
import threading
import ccl, numpy

def spin():
    while True:
        sum(range(1000))

threading.Thread(target=spin, daemon=True).start()
master = ccl.Master(listen="127.0.0.1:0", new_run=True)
communicator = ccl.Communicator(master.address)
calls = [communicator.all_reduce_async(numpy.ones(10000), tag=tag) for tag in range(200)]
for call in calls:
    call.add_done_callback(lambda: sum(range(20000)))
"""


def end(script: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "call",
    [
        "all_reduce_async(values)",
        "sync_async(ccl.SharedState({'values': values}))",
        "update_topology_async()",
    ],
)
def test_the_end_waits_for_who_is_being_told(call: str) -> None:
    assert end(TOLD_LATE.replace("{call}", call)) == "told\n"


def test_calls_that_end_with_the_interpreter_do_not_disturb_it() -> None:
    for _ in range(10):
        assert end(TOLD_OFTEN) == ""
