"""Peers in real processes: each runs one function of a test, and sends back its result."""

import importlib.util
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

import ccl

#: Far longer than anything here takes; only a hang reaches it.
HANG_SECONDS = 60

P = ParamSpec("P")
R = TypeVar("R")



def _fresh_processes() -> Any:
    """Not forks of this process: they would share its threads and locks.

    Torch takes eight seconds of a core to import, half of them for what its first optimizer imports. So
    where it is, peers are forks of a server that did that and nothing else, and has one thread.
    """
    if importlib.util.find_spec("torch") is None:
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["torch._dynamo", "torch.distributed.fsdp", "ccl.torch", "pytest"])
    return server


_PROCESSES = _fresh_processes()


class Peer:
    """A process that runs ``body(pipe, ...)``."""

    def __init__(self, body: Callable[..., Any], *args: Any) -> None:
        self.pipe, theirs = _PROCESSES.Pipe()
        self.process = _PROCESSES.Process(target=_main, args=(theirs, body, args), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """The next value that it sends, or its result."""
        if not self.pipe.poll(HANG_SECONDS):
            raise AssertionError("the peer says nothing")
        kind, value = self.pipe.recv()
        if kind == "failed":
            raise AssertionError(f"in the peer:\n{value}")
        return value

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> None:
        """Ends it, whatever it is doing."""
        self.process.kill()
        self.process.join(HANG_SECONDS)
        self.pipe.close()


class Pipe:
    """A peer's end of the connection: ``Peer.receive`` gets what it sends, ``wait`` what the test sends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, value: Any) -> None:
        """Sends a value to the test."""
        self._connection.send(("said", value))

    def wait(self) -> Any:
        """The next value that the test sends."""
        return self._connection.recv()


def _main(connection: Connection, body: Callable[..., Any], args: tuple[Any, ...]) -> None:
    # Background jobs of a shell start with SIGINT ignored, and pass that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = body(Pipe(connection), *args)
    except BaseException:
        connection.send(("failed", traceback.format_exc()))
        raise
    connection.send(("returned", result))


@contextmanager
def started(count: int, body: Callable[..., Any], *args: Any) -> Iterator[list[Peer]]:
    """Starts this many peers, and ends them at the end of the block."""
    peers: list[Peer] = []
    try:
        for _ in range(count):
            peers.append(Peer(body, *args))
        yield peers
    finally:
        for peer in peers:
            peer.end()


def _member(
    _pipe: Pipe, address: str, world: int, body: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[int, Any]:
    with connect(address, world) as communicator:
        result = body(communicator, *args)
        communicator.barrier()
        return communicator.rank, result


def connect(address: str, world: int) -> ccl.Communicator:
    """A communicator of a run that starts with this many peers."""
    return ccl.Communicator(
        address,
        initial_world_size=world,
        connect_timeout=HANG_SECONDS,
        operation_timeout=HANG_SECONDS,
    )


def run(
    world: int,
    body: Callable[Concatenate[ccl.Communicator, P], R],
    *args: P.args,
    **_none: P.kwargs,
) -> list[R]:
    """Runs ``body(communicator, ...)`` in this many processes; returns results in rank order."""
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(world, _member, master.address, world, body, args) as peers:
            results = sorted((peer.receive() for peer in peers), key=lambda pair: pair[0])
    assert [rank for rank, _ in results] == list(range(world))
    return [result for _, result in results]
