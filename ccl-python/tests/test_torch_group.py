"""Calls on torch's process groups with the backend ccl: those that work, and those that are refused."""

import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
import torch.distributed._functional_collectives as functional  # noqa: E402

import ccl.torch  # noqa: E402

pytestmark = pytest.mark.torch


def mine() -> Any:
    return torch.ones(2) * (dist.get_rank() + 1)


def know_themselves() -> None:
    assert dist.is_initialized() and dist.get_backend() == "ccl"
    assert (dist.get_world_size(), [dist.get_rank()]) == (2, RANK)
    assert ccl.torch.communicator().world_size == 2


def give_to_one_or_from_one() -> None:
    rank = dist.get_rank()
    whole = mine()
    dist.reduce(whole, 1)
    assert whole.tolist() == [[1, 1], [3, 3]][rank], "only the root's changes"
    parts = [torch.zeros(2), torch.zeros(2)] if rank == 0 else None
    dist.gather(mine(), parts, dst=0)
    assert parts is None or [part.tolist() for part in parts] == [[1, 1], [2, 2]]
    share = torch.zeros(3, dtype=torch.int64)
    dist.scatter(share, [torch.arange(3), torch.arange(3) + 5] if rank == 1 else None, src=1)
    assert share.tolist() == [[0, 1, 2], [5, 6, 7]][rank]


def send_objects() -> None:
    rank = dist.get_rank()
    told = [rank, {"rank": rank}]
    dist.broadcast_object_list(told, src=1)
    assert told == [1, {"rank": 1}]
    gathered: list[Any] = [None, None]
    dist.gather_object({"rank": rank}, gathered if rank == 0 else None, dst=0)
    assert rank == 1 or gathered == [{"rank": 0}, {"rank": 1}]
    got: list[Any] = [None]
    dist.scatter_object_list(got, ["a", "longer"] if rank == 0 else None, src=0)
    assert got == [["a"], ["longer"]][rank]


def use_functions() -> None:
    world: Any = dist.group.WORLD
    assert (functional.all_reduce(mine(), "sum", world) + 0).tolist() == [3, 3]
    assert (functional.all_gather_tensor(mine(), 0, world) + 0).tolist() == [1, 1, 2, 2]
    assert (functional.reduce_scatter_tensor(mine(), "sum", 0, world) + 0).tolist() == [3]
    odd = torch.full((3,), dist.get_rank(), dtype=torch.uint8)
    first, second = functional.all_gather_into_tensor_coalesced([odd, mine()], world)
    assert (first + 0).tolist() == [0, 0, 0, 1, 1, 1] and (second + 0).tolist() == [1, 1, 2, 2]
    first, second = functional.reduce_scatter_tensor_coalesced(
        [torch.arange(4.0), mine()], "sum", [0, 0], world
    )
    assert (first + 0).tolist() == [[0, 2], [4, 6]][dist.get_rank()] and (second + 0).tolist() == [3]


def coalesce() -> None:
    first, second = mine(), mine()
    with dist._coalescing_manager(device=torch.device("cpu")):
        dist.all_reduce(first)
        dist.all_reduce(second)
    assert (first.tolist(), second.tolist()) == ([3, 3], [3, 3])


def follow_work() -> None:
    work = dist.all_reduce(mine(), async_op=True)
    doubled = work.get_future().then(lambda future: future.value()[0] * 2)
    assert doubled.wait().tolist() == [6, 6]
    assert work.wait() and work.is_completed() and work.is_success()
    assert work.exception() is None and work.result()[0].tolist() == [3, 3]
    if dist.get_rank() == 0:
        work = dist.all_reduce(mine(), async_op=True)
        with pytest.raises(TimeoutError):
            work.wait(timedelta(milliseconds=1))
        assert not work.is_completed()
        dist.barrier(group=SECOND[0])
        assert work.wait()
    else:
        dist.barrier(group=SECOND[0])
        dist.all_reduce(mine())


def make_groups() -> None:
    rank = dist.get_rank()
    both: Any = dist.new_group([0, 1], timeout=timedelta(seconds=HANG_SECONDS))
    second: Any = dist.new_group([1], timeout=timedelta(seconds=HANG_SECONDS))
    whole = mine()
    dist.all_reduce(whole, group=both)
    assert whole.tolist() == [3, 3] and dist.get_world_size(both) == 2
    if rank == 1:
        dist.all_reduce(whole, group=second)
        assert whole.tolist() == [3, 3] and dist.get_rank(second) == 0
        dist.destroy_process_group(second)
        with pytest.raises(ValueError, match="not initialized|Invalid|not registered|unknown"):
            dist.all_reduce(whole, group=second)
    dist.destroy_process_group(both)
    dist.all_reduce(whole)


def combine_flags() -> None:
    rank = dist.get_rank()
    for op, expected in [("SUM", [1, 1, 0]), ("PRODUCT", [0, 1, 0]), ("MIN", [0, 1, 0])]:
        flags = torch.tensor([rank == 0, True, False])
        dist.all_reduce(flags, op=getattr(dist.ReduceOp, op))
        assert flags.view(torch.uint8).tolist() == expected, op
    with pytest.raises(ccl.InvalidArgument, match="bool tensors have no average"):
        dist.all_reduce(torch.tensor([True]), op=dist.ReduceOp.AVG)


def refuse() -> None:
    other = 1 - dist.get_rank()
    for call in [
        lambda: dist.send(mine(), other),
        lambda: dist.recv(mine(), other),
        lambda: dist.isend(mine(), other),
        lambda: dist.recv(mine()),
        lambda: dist.batch_isend_irecv([dist.P2POp(dist.isend, mine(), other)]),
    ]:
        with pytest.raises(ccl.InvalidUsage, match=r"the backend ccl has no .*backend=\"gloo\""):
            call()
    with pytest.raises(ccl.InvalidArgument, match="no ReduceOp BAND; it has sum, avg"):
        dist.all_reduce(torch.ones(2, dtype=torch.int32), op=dist.ReduceOp.BAND)
    dist.all_reduce(mine())  # nothing of it has happened


def give_from_each_to_each() -> None:
    rank = dist.get_rank()
    got = torch.zeros(2)
    dist.all_to_all_single(got, torch.tensor([10.0, 20.0]) + rank)
    assert got.tolist() == [[10, 11], [20, 21]][rank]
    # Rank 0 sends one and two rows, rank 1 sends none and three.
    sizes = [[1, 2], [0, 3]]
    given = torch.arange(6, dtype=torch.int16).view(3, 2) + 100 * rank
    expected = [given[:1], torch.cat([given[1:] - 100, given])][rank]
    got = torch.zeros_like(expected)
    dist.all_to_all_single(got, given, [of[rank] for of in sizes], sizes[rank])
    assert torch.equal(got, expected)
    flags = [torch.zeros(1, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)]
    dist.all_to_all(flags, [torch.ones_like(flags[rank]), torch.ones_like(flags[rank])])
    assert all(flag.all() for flag in flags), "of two lengths"
    world: Any = dist.group.WORLD
    swapped = functional.all_to_all_single(mine(), None, None, world) + 0
    assert swapped.tolist() == [1, 2]
    dist.all_to_all_single(torch.zeros(0), torch.zeros(0))
    complex_got = torch.zeros(2, dtype=torch.complex64)
    dist.all_to_all_single(complex_got, torch.full((2,), 1j * rank, dtype=torch.complex64))
    assert complex_got.tolist() == [0, 1j]
    with pytest.raises(ccl.InvalidArgument, match="cannot be split equally among 2 ranks"):
        dist.all_to_all_single(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ccl.InvalidArgument, match=r"the split sizes \[1, 1\] add up to 2"):
        dist.all_to_all_single(torch.zeros(2), torch.zeros(3), [1, 1], [1, 1])
    with pytest.raises(ccl.InvalidArgument, match="rank 0 sends 4 bytes to rank 1, which expects 8"):
        wanted = [[1, 1], [2, 1]][rank]
        dist.all_to_all_single(torch.zeros(sum(wanted)), torch.zeros(2), wanted, [1, 1])


def call_groups_themselves() -> None:
    rank = dist.get_rank()
    world: Any = dist.group.WORLD
    sums = [mine() for _ in range(4)]
    world.allreduce(sums[0]).wait()
    world.allreduce(sums[1], dist.ReduceOp.MAX).wait()
    world.allreduce([sums[2]], op=dist.ReduceOp.MIN).wait()
    world.reduce(sums[3], root=1).wait()
    assert [whole[0].item() for whole in sums[:3]] == [3, 2, 1]
    assert sums[3].tolist() == [[1, 1], [3, 3]][rank]
    told = mine()
    world.broadcast(told, root=1).wait()
    assert told.tolist() == [2, 2]
    parts = [torch.zeros(2), torch.zeros(2)]
    world.allgather(parts, mine()).wait()
    assert [part[0].item() for part in parts] == [1, 2]
    world.gather(parts if rank == 0 else [], mine() * 2, 0).wait()
    assert rank == 1 or [part[0].item() for part in parts] == [2, 4]
    share = torch.zeros(2)
    world.scatter(share, [mine(), mine() * 3] if rank == 0 else [], root=0).wait()
    assert share.tolist() == [[1, 1], [3, 3]][rank]
    world.reduce_scatter(share, [mine(), mine() * 5], op=dist.ReduceOp.SUM).wait()
    assert share.tolist() == [[3, 3], [15, 15]][rank]
    world.barrier(timeout=timedelta(seconds=HANG_SECONDS)).wait()
    with pytest.raises(ccl.InvalidArgument, match="allreduce has no argument 'root'"):
        world.allreduce(mine(), root=1)


def compile_ddp() -> None:
    curves: list[list[float]] = []
    for wrap in [lambda model: model, lambda model: torch.compile(model, backend="eager")]:
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)]
        model = wrap(torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        curves.append([])
        for _ in range(3):
            loss = model(mine().repeat(3, 2)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curves[-1].append(float(loss.detach()))
    assert curves[0] == pytest.approx(curves[1])


def share_memory() -> None:
    rank = dist.get_rank()
    whole = torch.arange(4.0) + rank
    dist.reduce_scatter_tensor(whole[2 * rank : 2 * rank + 2], whole)
    assert whole.tolist() == [[1, 3, 2, 3], [1, 2, 5, 7]][rank], "a share of its own input"
    whole = torch.tensor([1.0, 2.0])
    dist.all_gather_into_tensor(whole, whole[rank : rank + 1] * (rank + 1))
    assert whole.tolist() == [1, 4]
    expanded = torch.ones(1).expand(3)
    for call in [
        lambda: dist.all_reduce(expanded),
        lambda: dist.broadcast(expanded, 0),
        lambda: dist.all_gather_into_tensor(torch.ones(1).expand(6), torch.ones(3)),
        lambda: dist.reduce_scatter_tensor(expanded, torch.ones(6)),
    ]:
        with pytest.raises(ccl.InvalidArgument, match="is expanded.*contiguous"):
            call()
    dist.all_reduce(mine())  # nothing of it was sent


def load_full_states() -> None:
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.fsdp import fully_shard

    world: Any = dist.group.WORLD
    assert torch.device("cpu") in world._device_types
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    whole = {name: torch.full_like(value, 7.0) for name, value in model.state_dict().items()}
    fully_shard(model)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole if dist.get_rank() == 0 else {}, options=options)
    assert all(value.full_tensor().eq(7).all() for value in model.state_dict().values())
    saved: Any = checkpoint.async_save(
        {"model": model.state_dict()}, checkpoint_id=FOLDER[0] + "-async"
    )
    assert saved.result() is not None


def checkpoint_shards() -> None:
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    fully_shard(model)
    checkpoint.save({"model": model.state_dict()}, checkpoint_id=FOLDER[0])
    model(torch.ones(2, 4)).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    checkpoint.load({"model": model.state_dict()}, checkpoint_id=FOLDER[0])
    whole = [parameter.full_tensor() for parameter in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, whole, strict=True))


SECOND: list[Any] = []
FOLDER: list[str] = []
RANK: list[int] = []


def name_the_missing() -> None:
    dist.monitored_barrier(timeout=timedelta(seconds=HANG_SECONDS))
    soon = timedelta(milliseconds=200)
    if dist.get_rank() == 0:
        with pytest.raises(RuntimeError, match="Rank 1 failed to pass monitoredBarrier in 200 ms"):
            dist.monitored_barrier(timeout=soon)
        dist.barrier()
    else:
        dist.barrier()
        with pytest.raises(RuntimeError, match="Rank 1 successfully reached monitoredBarrier, but"):
            dist.monitored_barrier(timeout=soon)
    with pytest.raises(RuntimeError, match=f"Rank {dist.get_rank()} timed out in monitoredBarrier"):
        dist.monitored_barrier(timeout=timedelta(0))
    dist.monitored_barrier(timeout=timedelta(seconds=HANG_SECONDS), wait_all_ranks=True)


FACTS: dict[str, Callable[[], None]] = {
    "groups know rank, size and name": know_themselves,
    "one rank gets or gives": give_to_one_or_from_one,
    "objects are sent": send_objects,
    "functions and tensors of several types work": use_functions,
    "calls are coalesced": coalesce,
    "work is waited for, followed and asked": follow_work,
    "groups are made and destroyed": make_groups,
    "flags stay flags": combine_flags,
    "each gives to each": give_from_each_to_each,
    "what there is not is refused": refuse,
    "sharded models are checkpointed": checkpoint_shards,
    "methods of groups take what torch's take": call_groups_themselves,
    "DDP is compiled": compile_ddp,
    "a monitored barrier names who does not come": name_the_missing,
    "tensors may share memory where that has a meaning": share_memory,
    "whole states are loaded into shards, and saved meanwhile": load_full_states,
}


def check_all(_pipe: Pipe, address: str, folder: str, rank: int) -> dict[str, str]:
    """The failures of all checks, by name."""
    ccl.torch.use_master(address)
    FOLDER[:] = [f"{folder}/checkpoint"]
    RANK[:] = [rank]
    failures: dict[str, str] = {}
    begin(folder, "fixed", rank)
    SECOND[:] = [dist.new_group([0, 1])]
    for fact, check in FACTS.items():
        try:
            check()
        except Exception:
            failures[fact] = traceback.format_exc()
        dist.barrier()
    dist.destroy_process_group()
    return failures


def begin(folder: str, name: str, rank: int) -> None:
    dist.init_process_group(
        "ccl",
        init_method=f"file://{folder}/{name}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=HANG_SECONDS),
    )


def change_kinds(_pipe: Pipe, address: str, folder: str, rank: int) -> None:
    ccl.torch.use_master(address)
    for kind in ["elastic", "first", "elastic", "second"]:
        if kind == "elastic":
            dist.init_process_group("ccl", init_method=f"ccl://{address}?initial_world_size=2")
            assert dist.get_world_size() == 1
            lone: Any = dist.new_group([0])
            whole = torch.tensor([float(ccl.torch.communicator().rank)])
            dist.all_reduce(whole, group=lone)
            assert whole.tolist() == [0.5], "groups of an elastic run average over all members"
            own = torch.arange(2.0)
            dist.all_to_all_single(whole := torch.zeros(2), own)
            assert torch.equal(whole, own), "alone as torch sees it, it gives to itself"
            dist.destroy_process_group(lone)
            assert ccl.torch.share(ccl.torch.communicator().rank) == 0
        else:
            begin(folder, kind, rank)
            whole = mine()
            dist.all_reduce(whole)
            assert whole.tolist() == [3, 3]
            with pytest.raises(ccl.InvalidUsage, match="only an elastic run"):
                ccl.torch.update_topology()
        dist.barrier()
        dist.destroy_process_group()


def run_two(body: Callable[..., Any], folder: Path) -> list[Any]:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(body, master.address, str(folder), rank) for rank in range(2)]
        try:
            return [peer.receive() for peer in peers]
        finally:
            for peer in peers:
                peer.end()


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return run_two(check_all, tmp_path_factory.mktemp("groups"))


@pytest.mark.parametrize("fact", FACTS)
def test_between_two_ranks(fact: str, failures: list[dict[str, str]]) -> None:
    for rank, of_rank in enumerate(failures):
        assert fact not in of_rank, f"on rank {rank}:\n{of_rank[fact]}"


def test_an_elastic_run_and_one_of_fixed_ranks_follow_each_other(tmp_path: Path) -> None:
    run_two(change_kinds, tmp_path)
