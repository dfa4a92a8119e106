"""Connecting: waited for on another thread than it was started on, or given up."""

import threading
from collections.abc import Iterator

import pytest

import ccl
from peers import HANG_SECONDS


@pytest.fixture
def address() -> Iterator[str]:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        yield master.address


def test_two_that_are_on_their_way_meet(address: str) -> None:
    ways = [
        ccl.Communicator.connect_async(address, initial_world_size=2, connect_timeout=HANG_SECONDS)
        for _ in range(2)
    ]
    members = [way.wait() for way in ways]
    assert sorted(member.rank for member in members) == [0, 1]
    for member in members:
        member.close()


def test_a_wait_may_end_before_the_connection_does(address: str) -> None:
    way = ccl.Communicator.connect_async(address, initial_world_size=2, connect_timeout=HANG_SECONDS)
    with pytest.raises(ccl.Timeout):
        way.wait(0.001)
    with ccl.Communicator(address, initial_world_size=2) as other, way.wait() as member:
        assert {other.rank, member.rank} == {0, 1}


def test_whoever_waits_learns_that_it_was_given_up(address: str) -> None:
    way = ccl.Communicator.connect_async(address, initial_world_size=2, connect_timeout=HANG_SECONDS)
    errors: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(ccl.Ended) as caught:
            way.wait()
        errors.append(caught.value)

    waiter = threading.Thread(target=wait)
    waiter.start()
    way.close()
    waiter.join(HANG_SECONDS)
    assert len(errors) == 1
    # It leaves nothing behind: two others form a world of two.
    others = [ccl.Communicator.connect_async(address, initial_world_size=2) for _ in range(2)]
    for other in others:
        assert other.wait().world_size == 2


def test_closing_it_closes_the_communicator(address: str) -> None:
    way = ccl.Communicator.connect_async(address)
    member = way.wait()
    way.close()
    with pytest.raises(ccl.Ended):
        member.barrier()
