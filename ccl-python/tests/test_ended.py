"""What every call returns after the end of a session, however it ended."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ccl
import numpy as np
import pytest
from peers import connect

Call = Callable[[ccl.Communicator], Any]


def state() -> ccl.SharedState:
    """A state of one entry."""
    return ccl.SharedState({"weights": np.zeros(4, np.float32)})


#: With buffers for a world of two.
CALLS: dict[str, Call] = {
    "all_reduce": lambda c: c.all_reduce(np.ones(2)),
    "all_reduce_async": lambda c: c.all_reduce_async(np.ones(2)).wait(),
    "all_reduce_many": lambda c: c.all_reduce_many([np.ones(2), np.ones(1)]),
    "all_reduce_many_async": lambda c: c.all_reduce_many_async([np.ones(2)]).wait(),
    "all_gather": lambda c: c.all_gather(np.ones(1), np.ones(2)),
    "all_gather_async": lambda c: c.all_gather_async(np.ones(1), np.ones(2)).wait(),
    "all_gather_scalars": lambda c: c.all_gather_scalars([1.0, 2.0]),
    "reduce_scatter": lambda c: c.reduce_scatter(np.ones(2), np.ones(1)),
    "reduce_scatter_async": lambda c: c.reduce_scatter_async(np.ones(2), np.ones(1)).wait(),
    "broadcast": lambda c: c.broadcast(np.ones(2), root=1),
    "broadcast_async": lambda c: c.broadcast_async(np.ones(2), root=1).wait(),
    "barrier": lambda c: c.barrier(),
    "barrier_async": lambda c: c.barrier_async().wait(),
    "sync": lambda c: c.sync(state()),
    "sync_async": lambda c: c.sync_async(state()).wait(),
    "update_topology": lambda c: c.update_topology(),
    "update_topology_async": lambda c: c.update_topology_async().wait(),
}


def facts(communicator: ccl.Communicator) -> tuple[Any, ...]:
    """All attributes of a communicator. Counters of links still increase a little."""
    view = communicator.view
    return (
        communicator.peer,
        communicator.rank,
        communicator.world_size,
        communicator.epoch,
        (view.epoch, view.term, view.members, view.ring_order),
        communicator.pending_peers,
        communicator.global_world_size,
        communicator.groups,
        communicator.largest_group,
        communicator.listen_address,
        communicator.counters().commits,
        repr(communicator),
    )


@contextmanager
def pair() -> Iterator[tuple[ccl.Master, ccl.Communicator, ccl.Communicator]]:
    """A master with a short ``post_timeout``, and two members."""
    settings: Any = {"post_timeout": 0.1, "detach_timeout": 1, "new_run": True}
    with ccl.Master(listen="127.0.0.1:0", **settings) as master:
        members: list[ccl.Communicator] = []
        join = threading.Thread(target=lambda: members.append(connect(master.address, 2)))
        join.start()
        with connect(master.address, 2) as one:
            join.join()
            with members[0] as other:
                yield master, one, other


def check_calls(communicator: ccl.Communicator, before: tuple[Any, ...], words: str) -> None:
    """Checks that every call raises how the session ended, and that attributes keep their values."""
    for _ in range(2):
        for name, call in CALLS.items():
            with pytest.raises(ccl.SessionOver) as caught:
                call(communicator)
            assert words in str(caught.value), name
            assert facts(communicator) == before, name


def test_after_an_eviction_every_call_says_so() -> None:
    with pair() as (_, one, other):
        before = facts(other)
        with pytest.raises(ccl.PeerLost):
            one.barrier()
        with pytest.raises(ccl.Evicted):
            other.update_topology()
        check_calls(other, before, "evicted")
        other.close()
        check_calls(other, before, "evicted")


def test_after_closing_every_call_says_so() -> None:
    with pair() as (_, _, other):
        before = facts(other)
        other.close()
        check_calls(other, before, "it left")


def test_after_an_unknown_end_every_call_says_so() -> None:
    with pair() as (master, _, other):
        before = facts(other)
        master.close()
        with pytest.raises(ccl.Unknown):
            other.barrier()
        check_calls(other, before, "no master for longer than detach_timeout")
