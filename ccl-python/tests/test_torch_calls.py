"""Invalid calls of torch are refused, or aborted on all ranks, and never guessed at."""

import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe, started

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import ccl.torch  # noqa: E402

pytestmark = pytest.mark.torch

#: A tag of the communicator itself; groups use others.
OWN_TAG = 7


def world() -> Any:
    return dist.group.WORLD


def root(options: Any, rank: int) -> Any:
    options.rootRank = rank
    return options


def refuse_other_types() -> None:
    halves, numbers = torch.zeros(4, dtype=torch.float16), torch.zeros(2, dtype=torch.int16)
    parts = [torch.zeros(2), torch.zeros(2, dtype=torch.int32)]
    calls: list[Callable[[], Any]] = [
        lambda: dist.all_gather_into_tensor(halves, numbers),
        lambda: world().allgather([parts], [torch.zeros(2)]),
        lambda: dist.reduce_scatter_tensor(numbers, halves),
        lambda: world().scatter([torch.zeros(2)], [parts], root(dist.ScatterOptions(), dist.get_rank())),
    ]
    for call in calls:
        with pytest.raises(ccl.InvalidArgument, match="one tensor is .* but another is .*same type"):
            call()


def refuse_other_lengths() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: dist.all_gather([one], one), "has 1 tensors, but 2 are needed"),
        (lambda: dist.all_gather([one, one, one], one), "has 3 tensors, but 2 are needed"),
        (lambda: dist.all_gather([one, two], one), "has 2 elements, but 1 are needed"),
        (lambda: dist.all_gather_into_tensor(torch.zeros(3), one), "3 elements, but 2 are needed"),
        (lambda: dist.reduce_scatter(one, [one]), "has 1 tensors, but 2 are needed"),
        (lambda: dist.reduce_scatter_tensor(two, torch.zeros(5)), "5 elements, but 4 are needed"),
        (lambda: world().allreduce([]), "the list of tensors is empty"),
        (lambda: world().allgather([], []), "the list of tensors is empty"),
        (lambda: world().broadcast([], root(dist.BroadcastOptions(), 0)), "one tensor, not 0"),
        (lambda: world().reduce([], root(dist.ReduceOptions(), 0)), "the list of tensors is empty"),
    ]
    for call, words in calls:
        with pytest.raises(ccl.InvalidArgument, match=words):
            call()


def refuse_other_ranks() -> None:
    one = torch.zeros(1)
    calls: list[Callable[[], Any]] = [
        lambda: world().broadcast([one], root(dist.BroadcastOptions(), 2)),
        lambda: world().reduce([one], root(dist.ReduceOptions(), -1)),
        lambda: world().gather([], [one], root(dist.GatherOptions(), 9)),
        lambda: world().scatter([one], [], root(dist.ScatterOptions(), 2)),
    ]
    for call in calls:
        with pytest.raises(ccl.InvalidArgument, match="is not one of the 2 ranks of the group"):
            call()


def abort_calls_that_differ() -> None:
    rank = dist.get_rank()
    pairs: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        (
            "reduce to rank 0.*reduce to rank 1|reduce to rank 1.*reduce to rank 0",
            lambda: dist.reduce(torch.ones(2), 0),
            lambda: dist.reduce(torch.ones(2), 1),
        ),
        (
            "all_reduce",
            lambda: dist.reduce(torch.ones(2), 0),
            lambda: dist.all_reduce(torch.ones(2)),
        ),
        (
            "broadcast of int32 from rank 0",
            lambda: dist.broadcast(torch.ones(2), 0),
            lambda: dist.broadcast(torch.ones(2, dtype=torch.int32), 0),
        ),
        (
            "all_gather of float32",
            lambda: dist.all_gather([torch.ones(2)] * 2, torch.ones(2)),
            lambda: dist.all_gather_into_tensor(
                torch.ones(4, dtype=torch.int32), torch.ones(2, dtype=torch.int32)
            ),
        ),
        (
            "barrier",
            lambda: dist.all_reduce(torch.ones(1, dtype=torch.uint8)),
            lambda: world().barrier().wait(),
        ),
    ]
    for words, first, second in pairs:
        with pytest.raises(ccl.Cancelled, match=words):
            (first if rank == 0 else second)()
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == 2, "the group goes on"


def gather_nothing() -> None:
    parts = [torch.zeros(0), torch.zeros(0)]
    dist.all_gather(parts, torch.zeros(0))
    with pytest.raises(ccl.Cancelled):
        count = dist.get_rank()
        dist.all_gather([torch.zeros(count), torch.zeros(count)], torch.zeros(count))


def end_by_the_calls_own_time() -> None:
    own = ccl.torch.communicator()
    began = time.monotonic()
    if dist.get_rank() == 0:
        options = dist.AllreduceOptions()
        options.timeout = timedelta(milliseconds=300)
        with pytest.raises(TimeoutError, match="timed out"):
            world().allreduce([torch.ones(1)], options).wait()
        own.barrier(tag=OWN_TAG)
    else:
        own.barrier(tag=OWN_TAG)  # rank 0 has waited in vain
        with pytest.raises(ccl.DeadlinePassed, match="timed out"):
            dist.all_reduce(torch.ones(1))
    assert time.monotonic() - began < HANG_SECONDS / 2, "not by the group's"
    dist.all_reduce(torch.ones(1))


def average_integers() -> None:
    for dtype, value in [(torch.uint8, 200), (torch.int64, 2**62), (torch.int8, -100)]:
        values = torch.full((5,), value, dtype=dtype)
        dist.all_reduce(values, op=dist.ReduceOp.AVG)
        assert values.tolist() == [value] * 5


FACTS: dict[str, Callable[[], None]] = {
    "tensors of different types are refused": refuse_other_types,
    "lists and tensors of a wrong length are refused": refuse_other_lengths,
    "ranks that are not there are refused": refuse_other_ranks,
    "calls that differ between ranks are aborted at all": abort_calls_that_differ,
    "nothing is gathered only if nobody has anything": gather_nothing,
    "a call ends by its own time": end_by_the_calls_own_time,
    "averages of integers do not wrap": average_integers,
}


def check_all(_pipe: Pipe, address: str, folder: str, rank: int) -> dict[str, str]:
    ccl.torch.use_master(address)
    dist.init_process_group(
        "ccl",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=HANG_SECONDS),
    )
    failures = {}
    for fact, check in FACTS.items():
        try:
            check()
        except BaseException:
            failures[fact] = traceback.format_exc()
        ccl.torch.communicator().barrier(tag=OWN_TAG)
    dist.destroy_process_group()
    return failures


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder: Path = tmp_path_factory.mktemp("store")
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(check_all, master.address, str(folder), rank) for rank in range(2)]
        try:
            return [peer.receive() for peer in peers]
        finally:
            for peer in peers:
                peer.end()


@pytest.mark.parametrize("fact", FACTS)
def test_between_two_ranks(fact: str, failures: list[dict[str, str]]) -> None:
    for rank, failed in enumerate(failures):
        assert fact not in failed, f"on rank {rank}:\n{failed[fact]}"


def outlive_an_error(_pipe: Pipe, address: str) -> None:
    dist.init_process_group("ccl", init_method=f"ccl://{address}?initial_world_size=1")
    errors = world()._counts.errors
    errors.remember(ValueError("of the first run"))
    with pytest.raises(ValueError, match="of the first run"):
        ccl.torch.raise_pending()
    errors.remember(ValueError("of the first run"))
    dist.destroy_process_group()
    errors.remember(ValueError("of what was under way when it ended"))
    dist.init_process_group("ccl", init_method=f"ccl://{address}?initial_world_size=1")
    model = DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    dist.destroy_process_group()


def test_an_error_of_a_group_that_is_gone_is_not_raised_in_the_next_run() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, outlive_an_error, master.address) as [peer]:
            peer.receive()
