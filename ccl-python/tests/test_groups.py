"""What members know of the run beyond their group: numbers of members, and waiting newcomers."""

import threading
import time
from collections.abc import Callable

import ccl
from peers import HANG_SECONDS, Peer, Pipe, started

#: Members of all groups, number of groups, members of the largest group.
Census = tuple[int, int, int]


def census(communicator: ccl.Communicator) -> Census:
    return (
        communicator.global_world_size,
        communicator.groups,
        communicator.largest_group,
    )


def until(is_so: Callable[[], bool]) -> None:
    """Waits for the counts in the master's heartbeats."""
    end = time.monotonic() + HANG_SECONDS
    while not is_so():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def live(pipe: Pipe, address: str, group: int, world: int, grown: int = 0) -> None:
    """Carries out the test's commands, one after another.

    A peer that is admitted before the group is complete continues as the members do, to their next
    safe point.
    """
    with ccl.Communicator(
        address,
        group=group,
        initial_world_size=world,
        connect_timeout=HANG_SECONDS,
        operation_timeout=HANG_SECONDS,
    ) as communicator:
        assert communicator.world_size >= world
        while communicator.world_size < grown:
            communicator.update_topology()
        pipe.say("connected")
        while (wish := pipe.wait()) != "leave":
            if wish == "admit two":
                while communicator.world_size < world + 2:
                    communicator.update_topology()
            elif isinstance(wish, int):
                until(lambda: communicator.pending_peers == wish)
            else:
                until(lambda: census(communicator) == wish)
            pipe.say(communicator.world_size)


def ask(peers: list[Peer], wish: str | int | Census) -> list[int]:
    for peer in peers:
        peer.pipe.send(wish)
    return [peer.receive() for peer in peers]


def test_two_groups_know_of_each_other_and_of_those_who_wait() -> None:
    with ccl.Master(
        listen="127.0.0.1:0", new_run=True, heartbeat_interval=0.05, peer_timeout=5.0
    ) as master:
        with (
            started(2, live, master.address, 0, 2) as small,
            started(3, live, master.address, 1, 3) as large,
        ):
            assert [peer.receive() for peer in small + large] == ["connected"] * 5
            assert ask(small, (5, 2, 3)) == [2, 2]
            assert ask(large, (5, 2, 3)) == [3, 3, 3]
            assert ask(small + large, 0) == [2, 2, 3, 3, 3]
            with started(2, live, master.address, 0, 1, 4) as newcomers:
                assert ask(small, 2) == [2, 2]
                assert ask(large, 0) == [3, 3, 3], "they wait for another group"
                assert ask(small, (5, 2, 3)) == [2, 2], "newcomers do not count"
                assert ask(small, "admit two") == [4, 4]
                assert [peer.receive() for peer in newcomers] == ["connected"] * 2
                assert ask(small + newcomers + large, (7, 2, 4)) == [4] * 4 + [3] * 3
                assert ask(small + newcomers, 0) == [4] * 4
                for peer in large:
                    peer.process.kill()
                assert ask(small + newcomers, (4, 1, 4)) == [4] * 4
