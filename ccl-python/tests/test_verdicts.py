"""Calls that Ctrl-C ended before the master could answer: their memory stays in use until it does."""

import signal

import ccl
import numpy as np
import pytest
from peers import Pipe, connect, started
from test_waits import interrupt, interrupted


def serve(pipe: Pipe) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        pipe.say(master.address)
        pipe.wait()


def repeat_interrupted(pipe: Pipe, address: str) -> float:
    with connect(address, 2) as communicator:
        values, notes = np.full(1000, 1.0), []

        def reduce() -> None:
            try:
                communicator.all_reduce(values)
            except KeyboardInterrupt as error:
                notes.extend(error.__notes__)
                raise

        pipe.say("connected")
        pipe.wait()
        pipe.say(interrupted(pipe, reduce))
        assert "until the master" in notes[0]
        # The memory is in use, so the same call waits for the verdict on the earlier one.
        pipe.say(interrupted(pipe, lambda: communicator.all_reduce(values)))
        pipe.wait()
        handle = communicator.all_reduce_async(values)
        pipe.say("there is a verdict")
        handle.wait()
        assert communicator.counters().commits == 1
        return float(values[0])


def come_late(pipe: Pipe, address: str) -> float:
    with connect(address, 2) as communicator:
        values = np.full(1000, 2.0)
        pipe.say("connected")
        pipe.wait()
        with pytest.raises(ccl.Cancelled):
            communicator.all_reduce(values)
        communicator.all_reduce(values)
        return float(values[0])


def test_a_call_that_is_repeated_waits_for_the_verdict_of_the_interrupted_one() -> None:
    with started(1, serve) as [master]:
        address = master.receive()
        with (
            started(1, repeat_interrupted, address) as [early],
            started(1, come_late, address) as [late],
        ):
            assert early.receive() == late.receive() == "connected"
            master.signal(signal.SIGSTOP)
            early.pipe.send("go")
            interrupt(early)
            interrupt(early)
            master.signal(signal.SIGCONT)
            early.pipe.send("go")
            # Until the verdict the other member could still make it succeed.
            assert early.receive() == "there is a verdict"
            late.pipe.send("go")
            assert early.receive() == late.receive() == 3.0
        master.pipe.send("stop")
