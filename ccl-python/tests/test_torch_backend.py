"""The torch.distributed backend: the same numbers as gloo's, and what happens when ranks are lost."""

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe, started

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import ccl.torch  # noqa: E402

pytestmark = pytest.mark.torch
STEPS = 8


@contextmanager
def group(backend: str, folder: str, rank: int, size: int) -> Iterator[None]:
    name = Path(folder) / f"{backend}.store"
    dist.init_process_group(
        backend,
        init_method=f"file://{name}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=HANG_SECONDS),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def network(*middle: Any) -> Any:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 64), *middle, torch.nn.Tanh(), torch.nn.Linear(64, 4)]
    return torch.nn.Sequential(*layers)


def train(model: Any, rank: int, step_done: Callable[[int], None] = lambda _step: None) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    source = torch.Generator().manual_seed(rank)
    losses = []
    for step in range(STEPS):
        inputs = torch.randn(32, 16, generator=source)
        target = inputs[:, :4].sin()
        loss = torch.nn.functional.mse_loss(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        step_done(step)
    return losses


def compare(pipe: Pipe, address: str, folder: str, rank: int) -> dict[str, list[float]]:
    ccl.torch.use_master(address)
    curves = {}
    for backend in ["gloo", "ccl"]:
        with group(backend, folder, rank, 2):
            curves[f"ddp {backend}"] = train(DistributedDataParallel(network()), rank)
            curves[f"fsdp {backend}"] = train(fully_shard(network()), rank)
            if backend == "ccl":
                check_collectives(rank)
    return curves


def hybrid(backend: str) -> Any:
    """A network sharded over two ranks and replicated twice, the replicas over a backend."""
    mesh = init_device_mesh(
        "cpu",
        (2, 2),
        mesh_dim_names=("replicate", "shard"),
        backend_override={"replicate": backend, "shard": "gloo"},
    )
    return fully_shard(network(), mesh=mesh)


def compare_hybrid(pipe: Pipe, address: str, folder: str, rank: int) -> dict[str, list[float]]:
    ccl.torch.use_master(address)
    with group("gloo", folder, rank, 4):
        curves = {f"hsdp {backend}": train(hybrid(backend), rank) for backend in ["gloo", "ccl"]}
        return curves


def check_collectives(rank: int) -> None:
    whole = torch.arange(4, dtype=torch.bfloat16) + rank
    dist.all_reduce(whole)
    assert whole.tolist() == [1, 3, 5, 7]
    strided = torch.full((3, 2), rank + 1.0).T
    work = dist.all_reduce(strided, op=dist.ReduceOp.AVG, async_op=True)
    work.wait()
    assert work.is_completed() and strided.eq(1.5).all()
    flags = torch.tensor([rank == 0, False])
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    assert flags.tolist() == [True, False]
    parts = [torch.zeros(3, dtype=torch.int16) for _ in range(2)]
    dist.all_gather(parts, torch.full((3,), rank, dtype=torch.int16))
    assert [part.tolist() for part in parts] == [[0] * 3, [1] * 3]
    objects: list[Any] = [None, None]
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": 0}, {"rank": 1}]
    gathered = torch.zeros(4)
    dist.all_gather_into_tensor(gathered, torch.full((2,), float(rank)))
    assert gathered.tolist() == [0, 0, 1, 1]
    share = torch.zeros(2)
    dist.reduce_scatter_tensor(share, torch.arange(4.0))
    assert share.tolist() == [4.0 * rank, 4.0 * rank + 2]
    told = torch.full((2,), rank, dtype=torch.complex64)
    dist.broadcast(told, src=1)
    assert told.tolist() == [1, 1]
    dist.barrier()
    works = [dist.all_reduce(torch.ones(1000), async_op=True) for _ in range(40)]
    for work in works:
        work.wait()


def run_all(world: int, body: Callable[..., Any]) -> list[Any]:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, tempfile.TemporaryDirectory() as at:
        peers = [Peer(body, master.address, at, rank) for rank in range(world)]
        try:
            return [peer.receive() for peer in peers]
        finally:
            for peer in peers:
                peer.end()


@pytest.mark.parametrize(("kind", "world"), [("ddp", 2), ("fsdp", 2), ("hsdp", 4)])
def test_the_loss_curve_is_that_of_gloo(kind: str, world: int) -> None:
    curves = run_all(world, compare_hybrid if kind == "hsdp" else compare)
    for curve in curves:
        assert len(curve[f"{kind} gloo"]) == STEPS
        assert curve[f"{kind} gloo"] == pytest.approx(curve[f"{kind} ccl"], abs=1e-6)
        assert curve[f"{kind} ccl"][-1] < curve[f"{kind} ccl"][0]
    assert len({curve[f"{kind} ccl"][0] for curve in curves}) == world, "each has data of its own"


def flat(model: Any) -> list[float]:
    weights = torch.cat([parameter.reshape(-1) for parameter in model.parameters()])
    return [float(weight) for weight in weights.detach()]


def lose_a_rank(pipe: Pipe, address: str, folder: str, rank: int) -> list[float]:
    ccl.torch.use_master(address)
    with group("ccl", folder, rank, 3):
        # Otherwise each forward pass needs rank 0.
        model = DistributedDataParallel(network(torch.nn.BatchNorm1d(64)), broadcast_buffers=False)
        train(model, rank, stop_after(2, pipe, rank))
        assert ccl.torch.communicator().world_size == 2
        total = torch.ones(2)
        dist.all_reduce(total)
        assert total.tolist() == [3, 3], "scaled for whoever divides by the ranks told"
        with pytest.raises(ccl.WorldChanged, match="1 of 3 ranks are lost"):
            dist.all_gather([torch.zeros(1)] * 3, torch.zeros(1))
        return flat(model)


def lose_a_member(pipe: Pipe, address: str, _folder: str, rank: int) -> list[float]:
    dist.init_process_group("ccl", init_method=f"ccl://{address}?initial_world_size=3")
    model = DistributedDataParallel(network(torch.nn.BatchNorm1d(64)), init_sync=False)
    train(model, rank, stop_after(2, pipe, ccl.torch.communicator().rank))
    assert ccl.torch.communicator().world_size == 2
    return flat(model)


def stop_after(step: int, pipe: Pipe, rank: int) -> Callable[[int], None]:
    """Sends its rank after a step, and waits for the test before it goes on."""

    def step_done(done: int) -> None:
        if done == step:
            pipe.say(rank)
            pipe.wait()

    return step_done


@pytest.mark.parametrize("body", [lose_a_rank, lose_a_member])
@pytest.mark.parametrize("victim", range(3))
def test_ddp_goes_on_without_a_rank_that_was_killed(
    victim: int, body: Callable[..., Any], tmp_path: Path
) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(body, master.address, str(tmp_path), rank) for rank in range(3)]
        try:
            by_rank = {peer.receive(): peer for peer in peers}
            by_rank.pop(victim).process.kill()
            for peer in by_rank.values():
                peer.pipe.send("go on")
            first, second = [peer.receive() for peer in by_rank.values()]
            assert first == second, "the survivors have the same weights"
        finally:
            for peer in peers:
                peer.end()


def broadcast_on(pipe: Pipe, address: str, folder: str, rank: int, kind: str) -> list[float]:
    """Broadcasts until a rank is lost; returns the results, -1 for one that failed."""
    ccl.torch.use_master(address)
    if kind != "fixed":
        dist.init_process_group("ccl", init_method=f"ccl://{address}?initial_world_size=3")
        rank = ccl.torch.communicator().rank
    else:
        store = dist.FileStore(f"{folder}/store", 3)
        dist.init_process_group("ccl", store=store, rank=rank, world_size=3)
    pipe.say(rank)
    told: list[float] = []
    is_lost = torch.zeros(1)
    while not is_lost.any():
        value = torch.full((1 << 16,), 10.0 * len(told) + rank)
        try:
            if kind == "shared":
                value = ccl.torch.share(value)
            else:
                dist.broadcast(value, src=1 if kind == "fixed" else 0)
            assert value.eq(value[0]).all()
            told.append(float(value[0]))
        except ccl.WorldChanged as error:
            assert "broadcast_buffers=False" in str(error)
            told.append(-1)
        if len(told) == 3:
            pipe.say("told")
        is_lost = torch.tensor([ccl.torch.communicator().world_size == 2])
        dist.all_reduce(is_lost, op=dist.ReduceOp.MAX)
    return told


@pytest.mark.parametrize(
    ("kind", "victim", "ends"),
    [("fixed", 0, [1]), ("fixed", 1, [1, -1]), ("elastic", 0, [0, 1]), ("shared", 0, [0, 1])],
)
def test_a_broadcast_goes_on_when_a_rank_is_killed(
    kind: str, victim: int, ends: list[int], tmp_path: Path
) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        arguments = (master.address, str(tmp_path))
        peers = [Peer(broadcast_on, *arguments, rank, kind) for rank in range(3)]
        try:
            by_rank = {peer.receive(): peer for peer in peers}
            assert [peer.receive() for peer in by_rank.values()] == ["told"] * 3
            by_rank.pop(victim).process.kill()
            first, second = [peer.receive() for peer in by_rank.values()]
            assert first == second, "all get the same, or all know that there is nothing"
            assert first[0] == ends[0]
            end = first[-1]
            assert (end if end < 0 else end % 10) in ends
        finally:
            for peer in peers:
                peer.end()


def lose_a_replica(pipe: Pipe, address: str, folder: str, rank: int) -> list[float]:
    ccl.torch.use_master(address)
    with group("gloo", folder, rank, 4):
        return train(hybrid("ccl"), rank, stop_after(2, pipe, rank))


@pytest.mark.parametrize("replica", range(2))
def test_hsdp_goes_on_without_a_replica_that_was_killed(replica: int, tmp_path: Path) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(lose_a_replica, master.address, str(tmp_path), rank) for rank in range(4)]
        try:
            assert [peer.receive() for peer in peers] == [0, 1, 2, 3]
            victims = peers[2 * replica : 2 * replica + 2]
            for victim in victims:
                victim.process.kill()
            survivors = [peer for peer in peers if peer not in victims]
            for peer in survivors:
                peer.pipe.send("go on")
            for losses in [peer.receive() for peer in survivors]:
                assert losses[-1] < losses[2], "it trains on"
        finally:
            for peer in peers:
                peer.end()


def fail_in_ddp(pipe: Pipe, address: str) -> None:
    patience = f"connect_timeout={HANG_SECONDS}&operation_timeout={HANG_SECONDS}"
    dist.init_process_group(
        "ccl",
        init_method=f"ccl://{address}?initial_world_size=2&{patience}",
        timeout=timedelta(seconds=1),
    )
    if ccl.torch.communicator().rank == 1:
        pipe.say("idle")
        pipe.wait()
        return
    model = DistributedDataParallel(network(), init_sync=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.ones(2, 16)).sum().backward()
    with pytest.raises(ccl.DeadlinePassed):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    pipe.say("failed")


def test_an_error_that_ddp_swallows_is_raised_before_the_step() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(2, fail_in_ddp, master.address) as peers:
            assert sorted(peer.receive() for peer in peers) == ["failed", "idle"]


def test_without_a_master_the_error_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="use_master"):
        with group("ccl", str(tmp_path), 0, 1):
            pass


def intrude(*_arguments: Any) -> None:
    """Creates groups of another backend of the same name."""
    raise AssertionError("it is never asked for a group")


def register_before(_pipe: Pipe) -> None:
    for name in [name for name in sys.modules if name.startswith("ccl.torch")]:
        del sys.modules[name]
    dist.Backend.register_backend("ccl", intrude, devices=["cpu"])
    with pytest.raises(RuntimeError, match="test_torch_backend has registered.*do not import"):
        importlib.import_module("ccl.torch")
    assert dist.Backend._plugins["CCL"].creator_fn is intrude, "the other one can be used"


def register_after(_pipe: Pipe) -> None:
    dist.Backend.register_backend("ccl", intrude, devices=["cpu"])
    for use in [
        lambda: ccl.torch.use_master("127.0.0.1:1"),
        lambda: ccl.torch.communicator(),
        lambda: dist.init_process_group("ccl", init_method="ccl://127.0.0.1:1"),
    ]:
        with pytest.raises(RuntimeError, match="test_torch_backend has registered.*oneCCL"):
            use()


@pytest.mark.parametrize("body", [register_before, register_after])
def test_another_package_with_the_name_is_an_error(body: Callable[..., None]) -> None:
    with started(1, body) as [peer]:
        peer.receive()
