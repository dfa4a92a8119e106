"""`split_group`, torch's API for subgroups, on ccl as on gloo."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe, started

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402

import ccl.torch  # noqa: E402

if not hasattr(dist, "split_group"):
    pytest.skip("this torch has no split_group", allow_module_level=True)

pytestmark = pytest.mark.torch

WORLD = 4
on_both = pytest.mark.parametrize("backend", ["ccl", "gloo"])


def begin(backend: str, address: str, folder: str, rank: int) -> None:
    ccl.torch.use_master(address)
    dist.init_process_group(
        backend,
        store=dist.FileStore(f"{folder}/store", WORLD),
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=HANG_SECONDS),
    )


@contextmanager
def world_of(body: Any, backend: str, folder: Path) -> Iterator[list[Peer]]:
    """A process for each rank, in rank order."""
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers: list[Peer] = []
        try:
            for rank in range(WORLD):
                peers.append(Peer(body, backend, master.address, str(folder), rank))
            yield peers
        finally:
            for peer in peers:
                peer.end()


def split(parts: list[list[int]], **options: Any) -> Any:
    return dist.split_group(split_ranks=parts, timeout=timedelta(seconds=HANG_SECONDS), **options)


def total(group: Any) -> float:
    """The sum of the members' ranks in the world."""
    whole = torch.tensor([float(dist.get_rank())])
    dist.all_reduce(whole, group=group)
    return float(whole)


def use_parts(_pipe: Pipe, backend: str, address: str, folder: str, rank: int) -> dict[str, Any]:
    begin(backend, address, folder, rank)
    world: Any = dist.group.WORLD
    half = split([[2, 0], [1, 3]], group_desc="half")
    some = split([[1, 2]])
    is_in = some is not dist.GroupMember.NON_GROUP_MEMBER
    quarter = split([[1], [0]], parent_pg=half)  # by ranks in the half
    told: list[Any] = [None, None]
    dist.all_gather_object(told, rank, group=half)
    last = told[-1]
    box = [f"from {rank}"]
    dist.broadcast_object_list(box, src=last, group=half)
    found = {
        "ranks": (dist.get_rank(half), dist.get_world_size(half), told, box),
        "globals": dist.get_process_group_ranks(half),
        "sums": (total(half), total(some) if is_in else None, total(quarter), total(None)),
        "names": len({half.group_name, quarter.group_name, world.group_name}),
    }
    again = dist.new_group([0, 1], timeout=timedelta(seconds=HANG_SECONDS))
    if rank < 2:
        found["again"] = total(again)
    dist.destroy_process_group(half)
    dist.barrier()
    return found


@on_both
def test_parts_have_the_ranks_in_the_order_given(backend: str, tmp_path: Path) -> None:
    with world_of(use_parts, backend, tmp_path) as peers:
        found = [peer.receive() for peer in peers]
    for rank, half in [(0, [2, 0]), (1, [1, 3]), (2, [2, 0]), (3, [1, 3])]:
        assert found[rank]["ranks"] == (half.index(rank), 2, half, [f"from {half[-1]}"])
        assert found[rank]["globals"] == half and found[rank]["names"] == 3
        some = 3 if rank in (1, 2) else None
        assert found[rank]["sums"] == (sum(half), some, rank, 6)
    assert [each.get("again") for each in found] == [1, 1, None, None]


def outlive_the_other_part(
    pipe: Pipe, backend: str, address: str, folder: str, rank: int
) -> float | None:
    begin(backend, address, folder, rank)
    half = split([[0, 1], [2, 3]])
    total(half)
    pipe.say("ready")
    pipe.wait()
    return total(half)


def test_a_part_goes_on_when_another_loses_a_rank(tmp_path: Path) -> None:
    with world_of(outlive_the_other_part, "ccl", tmp_path) as peers:
        for peer in peers:
            assert peer.receive() == "ready"
        peers[3].process.kill()
        peers[3].process.join()
        for peer in peers[:3]:
            peer.pipe.send(None)
        assert [peer.receive() for peer in peers[:2]] == [1, 1]
        assert peers[2].receive() == 4, "scaled to the two ranks that there were"


def find_no_parts(_pipe: Pipe, address: str) -> None:
    url = f"ccl://{address}?initial_world_size=1"
    alone: dict[str, Any] = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    ccl.torch.use_master(address)
    for options in [{"init_method": url}, {**alone, "enable_reconfigure": True}]:
        dist.init_process_group("ccl", **options)
        with pytest.raises(RuntimeError, match="does not support splitting"):
            split([[0]])
        dist.destroy_process_group()


def test_a_group_whose_members_change_is_not_split() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, find_no_parts, master.address) as [peer]:
            peer.receive()


def begin_on_a_device(_pipe: Pipe, address: str) -> None:
    ccl.torch.use_master(address)
    alone: dict[str, Any] = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("ccl", device_id=torch.device("cpu", 0), **alone)
    total(split([[0]]))
    total(dist.new_group([0]))


def test_a_device_may_be_given_for_a_group() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, begin_on_a_device, master.address) as [peer]:
            peer.receive()
