"""Closed groups: members and ranks that the program names, once for each id."""

from array import array

import ccl
import pytest
from peers import HANG_SECONDS, Pipe, started

NAMES = ["first", "second", "third"]
#: Of attempts that have to fail by it.
SOON_SECONDS = 1.0


def connect(address: str, rank: int, seconds: float = HANG_SECONDS) -> ccl.Communicator:
    return ccl.Communicator(
        address, group=7, members=NAMES, rank=rank, connect_timeout=seconds, name=NAMES[rank]
    )


def gather(pipe: Pipe, address: str, rank: int) -> tuple[int, list[int]]:
    """The rank that it has, and those of all that took part, in their order."""
    with connect(address, rank) as communicator:
        told = array("q", [0] * len(NAMES))
        communicator.all_gather(array("q", [rank]), told, deadline=HANG_SECONDS)
        pipe.say("gathered")
        pipe.wait()
        return communicator.rank, list(told)


def test_the_listed_members_form_a_group_in_order_and_nobody_else_ever_joins() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with (
            started(1, gather, master.address, 2) as third,
            started(1, gather, master.address, 0) as first,
            started(1, gather, master.address, 1) as second,
        ):
            peers = first + second + third
            assert [peer.receive() for peer in peers] == ["gathered"] * 3
            with pytest.raises(ccl.Refused, match="id 7 is already used: .* choose an id"):
                connect(master.address, 1)
            with pytest.raises(ccl.Refused, match="id 7 is already used"):
                ccl.Communicator(master.address, group=7)
            for peer in peers:
                peer.pipe.send("leave")
            assert [peer.receive() for peer in peers] == [(rank, [0, 1, 2]) for rank in range(3)]
        with pytest.raises(ccl.Refused, match="id 7 is already used"):
            connect(master.address, 0)
        with ccl.Communicator(master.address, members=["alone"], rank=0, group=8) as alone:
            assert (alone.world_size, alone.groups) == (1, 1), "of the other nothing is left"


def test_a_member_that_is_missing_is_named_and_its_group_may_be_tried_again() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        for _ in range(2):
            with pytest.raises(ccl.NotAdmitted, match="1 of the 3 members .* missing: rank 0, 1"):
                connect(master.address, 2, SOON_SECONDS)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"members": NAMES}, "members and rank are given together"),
        ({"rank": 0}, "members and rank are given together"),
        ({"members": [], "rank": 0}, "1 to 256 names"),
        ({"members": NAMES, "rank": 3}, "below the number of members, 3"),
        ({"members": NAMES, "rank": -1}, "rank"),
        ({"members": [str(rank) for rank in range(257)], "rank": 0}, "1 to 256 names"),
        ({"members": ["a", "a"], "rank": 0}, "lists \"a\" twice"),
        ({"members": NAMES, "rank": 0, "unit": 1, "unit_size": 2}, "unit_size"),
        ({"members": NAMES, "rank": 0, "initial_world_size": 2}, "number of members, 3"),
        ({"members": NAMES, "rank": 0, "min_world_size": 4}, "number of members, 3"),
    ],
)
def test_lists_that_cannot_be_are_refused(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ccl.InvalidArgument, match=error):
        ccl.Communicator("127.0.0.1:1", **settings)  # type: ignore[arg-type]
