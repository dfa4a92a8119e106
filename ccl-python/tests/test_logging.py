"""The library's log lines in Python's logging: off by default, and never waited for."""

import logging
import os
import queue
import subprocess
import sys
import threading

import ccl
import pytest
from peers import HANG_SECONDS, Pipe, started


class Lines(logging.Handler):
    """Collects lines, and waits for those that a test needs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.Queue[logging.LogRecord] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put(record)

    def find(self, words: str) -> logging.LogRecord:
        while True:
            record = self.lines.get(timeout=HANG_SECONDS)
            if words in record.getMessage():
                return record


def log_to(handler: logging.Handler, level: int) -> None:
    logger = logging.getLogger("ccl")
    logger.propagate = False
    logger.setLevel(level)
    logger.addHandler(handler)


def run_alone(group: int = 0) -> str:
    """Starts and ends a run; returns the name of its peer."""
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address, group=group) as communicator:
            communicator.barrier()
            return str(communicator.peer)


def log_lines(pipe: Pipe) -> None:
    handler = Lines()
    log_to(handler, logging.DEBUG)
    run_alone()
    assert handler.lines.empty(), "off at the start"
    assert not [thread for thread in threading.enumerate() if thread.name == "ccl-log"]
    ccl.set_log_level("info")
    peer = run_alone()
    record = handler.find("master: group 0 is in view")
    assert (record.name, record.levelno, record.levelname) == ("ccl", logging.INFO, "INFO")
    assert record.threadName and record.threadName.startswith("ccl") and record.created > 1e9
    ended = handler.find("the session of peer").getMessage()
    assert peer in ended, "the master's events are lines, too"
    ccl.set_log_level(logging.DEBUG)
    run_alone()
    assert handler.find("committed").levelno == logging.DEBUG
    ccl.set_log_level(None)
    run_alone(group=7)
    ccl.set_log_level("info")
    run_alone(group=8)
    while "group 8" not in (text := handler.find("group").getMessage()):
        assert "group 7" not in text, "off again"


def test_lines_reach_the_logger_from_the_level_on() -> None:
    with started(1, log_lines) as [peer]:
        peer.receive()


class Blocked(Lines):
    """A handler that does not return."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.go_on.wait(HANG_SECONDS)
        super().emit(record)


def log_too_much(pipe: Pipe) -> None:
    handler = Blocked()
    log_to(handler, logging.DEBUG)
    ccl.set_log_level("debug")
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            for _ in range(6000):
                communicator.barrier()
    handler.go_on.set()
    record = handler.find("lines were dropped")
    assert record.levelno == logging.WARNING
    ccl.set_log_level("info")
    run_alone()
    handler.find("master: group 0 is in view")


def test_a_handler_that_blocks_holds_nobody_up_and_is_told_what_it_missed() -> None:
    with started(1, log_too_much) as [peer]:
        peer.receive()


FORGETFUL = """
import atexit, logging, sys, threading, ccl

go_on = threading.Event()

class Late(logging.StreamHandler):
    def emit(self, record):
        go_on.wait()
        super().emit(record)

logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s", handlers=[Late(sys.stdout)])
atexit.register(go_on.set)
ccl.set_log_level("debug")
master = ccl.Master(listen="127.0.0.1:0", new_run=True)
communicator = ccl.Communicator(master.address)
print("end", flush=True)
"""


def test_what_was_said_before_the_interpreter_ends_is_logged() -> None:
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", FORGETFUL], capture_output=True, text=True, timeout=HANG_SECONDS
        )
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
        before, after = ended.stdout.split("end\n")
        assert before == "" and "ccl master: started in term" in after
        assert "ccl master: group 0 is in view" in after


def log_in_child(pipe: Pipe) -> int:
    handler = Lines()
    log_to(handler, logging.INFO)
    ccl.set_log_level("info")
    run_alone()
    handler.find("master: group 0 is in view")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # The thread that filled the other handler may still have been in it.
            logging.getLogger("ccl").removeHandler(handler)
            handler = Lines()
            log_to(handler, logging.INFO)
            run_alone()
            assert handler.lines.empty(), "off in a child"
            ccl.set_log_level("info")
            run_alone()
            handler.find("master: group 0 is in view")
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    run_alone()
    handler.find("master: group 0 is in view")
    return os.waitstatus_to_exitcode(ended)


def test_a_forked_child_begins_without_and_may_switch_it_on() -> None:
    with started(1, log_in_child) as [peer]:
        assert peer.receive() == 0


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ccl.InvalidArgument, match="'loud' is not a log level.*'info'"):
        ccl.set_log_level("loud")
    with pytest.raises(TypeError, match="not a log level"):
        ccl.set_log_level(1.5)  # type: ignore[arg-type]
