"""CUDA tensors, staged through host memory.

Most tests use a fake device, whose streams do nothing until they are waited for. Tests that need a real
device are skipped without one.
"""

import asyncio
import gc
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import run

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import ccl._cuda  # noqa: E402
import ccl.torch  # noqa: E402
import fake_cuda  # noqa: E402
from fake_cuda import cuda, launch, look, on_device, read  # noqa: E402

pytestmark = pytest.mark.torch


def full(count: int, value: float, dtype: Any = torch.float32) -> Any:
    """A tensor on the device whose value is still being computed."""
    tensor = on_device(torch.zeros(count, dtype=dtype))
    launch(lambda plain: plain.fill_(value), tensor)
    return tensor


def reduce_in_place(comm: ccl.Communicator) -> None:
    tensor = full(5, comm.rank + 1)
    weights = tensor.detach()
    outcome = comm.all_reduce(tensor, "avg")
    assert outcome.world_size == 2
    launch(lambda plain: plain.mul_(10), tensor)
    assert read(tensor) == [15.0] * 5, "the user's stream comes before and after"
    assert weights._version > 0, "autograd is told"


def reduce_all_types(comm: ccl.Communicator) -> None:
    for name in "uint8 int64 float16 bfloat16 float64".split():
        for shape in [(0, 3), (), (7, 3, 2)]:
            tensor = on_device(torch.full(shape, comm.rank + 1, dtype=getattr(torch, name)))
            comm.all_reduce(tensor)
            cuda.user.synchronize()
            assert (tensor.as_subclass(torch.Tensor) == 3).all(), (name, shape)


def reduce_out_of_place(comm: ccl.Communicator) -> None:
    tensor, out = full(3, comm.rank), full(3, -1)
    comm.all_reduce(tensor, "max", out=out)
    assert (read(tensor), read(out)) == ([comm.rank] * 3, [1] * 3)
    host = torch.zeros(3)
    comm.all_reduce(tensor, "max", out=host)
    assert host.tolist() == [1, 1, 1], "from the device to the host"


def reduce_with_the_host(comm: ccl.Communicator) -> None:
    tensor = full(3, 2) if comm.rank == 0 else torch.full((3,), 2.0)
    comm.all_reduce(tensor, "prod")
    assert read(tensor) == [4, 4, 4], "members need not have devices"


def reduce_many(comm: ccl.Communicator) -> None:
    tensors = [full(count, comm.rank + 1) for count in [4, 0, 3]]
    mixed = [*tensors, torch.ones(2)]
    comm.all_reduce_many(mixed)
    assert [read(tensor) for tensor in mixed] == [[3] * 4, [], [3] * 3, [2, 2]]


def move_in_segments(comm: ccl.Communicator) -> None:
    before = ccl._cuda.SEGMENT_BYTES
    ccl._cuda.SEGMENT_BYTES = 16
    try:
        tensor = on_device(torch.arange(11, dtype=torch.float32))
        done = len(cuda.user.work)
        comm.all_reduce(tensor)
        assert read(tensor) == [2.0 * index for index in range(11)]
        [lane] = ccl._cuda._lanes.values()
        assert len(lane.stream.work) >= 6 and len(cuda.user.work) - done == 1
    finally:
        ccl._cuda.SEGMENT_BYTES = before


def move_without_adding(comm: ccl.Communicator) -> None:
    rank = comm.rank
    gathered = full(4, -1)
    comm.all_gather(full(2, rank), gathered)
    assert read(gathered) == [0, 0, 1, 1]
    told = full(3, rank)
    comm.broadcast(told, root=1)
    assert read(told) == [1, 1, 1]
    share = full(2, -1)
    comm.reduce_scatter(on_device(torch.arange(4.0)), share)
    assert read(share) == [4.0 * rank, 4.0 * rank + 2]


def finish_in_the_background(comm: ccl.Communicator) -> None:
    tensor = full(3, comm.rank + 1)
    handle = comm.all_reduce_async(tensor)
    handle.wait()
    assert handle.wait().world_size == 2 and handle.done()
    assert read(tensor) == [3, 3, 3]

    told, tensor = threading.Event(), full(3, comm.rank + 1)
    found: list[Any] = []
    handle = comm.all_reduce_async(tensor)

    def tell() -> None:
        found.extend(look(tensor))
        told.set()

    handle.add_done_callback(tell)
    assert told.wait(30)
    assert found == [3, 3, 3], "who is told may use any stream"

    tensor = full(3, comm.rank + 1)
    handle = comm.all_reduce_async(tensor)
    while not handle.done():
        pass
    assert read(tensor) == [3, 3, 3], "the stream of whoever asks waits"

    async def reduce(tensor: Any) -> None:
        await comm.all_reduce_async(tensor)

    tensor = full(3, comm.rank + 1)
    asyncio.run(reduce(tensor))
    assert read(tensor) == [3, 3, 3]


def drop_the_handle(comm: ccl.Communicator) -> None:
    tensor = full(3, comm.rank + 1)
    handle = comm.all_reduce_async(tensor, tag=3)
    comm.barrier(tag=4)
    del handle
    gc.collect()
    handle = comm.all_reduce_async(torch.zeros(1), tag=3)
    handle.wait()
    begin = time.monotonic()
    while look(tensor) != [3, 3, 3]:
        assert time.monotonic() < begin + 30, "the operation goes on, to its end on the device"


def leave_it_alone_on_errors(comm: ccl.Communicator) -> None:
    tensor, out = full(3, 7), full(3, 8)
    for options in [{}, {"out": out}]:
        handle = comm.all_reduce_async(tensor, "sum" if comm.rank else "max", **options)
        with pytest.raises(ccl.Error):
            handle.wait()
        assert handle.done()
    assert (read(tensor), read(out)) == ([7] * 3, [8] * 3)


def level_state(comm: ccl.Communicator) -> None:
    weights, flags = full(3, comm.rank), on_device(torch.tensor([comm.rank == 0]))
    state = ccl.SharedState({"weights": weights, "flags": flags, "host": torch.ones(2)}, revision=1)
    assert state.names == ["weights", "flags", "host"]
    info = comm.sync(state)
    assert (info.received_bytes > 0) == (comm.rank == 1)
    assert (read(weights), read(flags)) == ([0, 0, 0], [True])
    [lane] = ccl._cuda._lanes.values()
    before = lane.stream.done
    state.revision = 2
    comm.sync(state)
    assert lane.stream.done - before == 4, "two waits and two copies; nothing goes back"


def reduce_in_torch(comm: ccl.Communicator) -> None:
    import torch.distributed as dist

    ccl.torch.use_master(ADDRESS[0])
    store = dist.FileStore(ADDRESS[1], 2)
    dist.init_process_group("ccl", store=store, rank=comm.rank, world_size=2)
    # Not with torch's functions, which treat tensor subclasses in their own way.
    group: Any = dist.group.WORLD
    tensor = full(4, comm.rank + 1)
    group.allreduce([tensor]).wait()
    assert read(tensor) == [3] * 4
    strided = on_device(torch.full((4, 2), comm.rank + 1.0))[:, 0]
    group.allreduce([strided]).wait()
    assert read(strided) == [3] * 4
    told = full(3, comm.rank)
    group.broadcast([told], 1).wait()
    assert read(told) == [1] * 3
    parts = [full(2, -1) for _ in range(2)]
    group.allgather([parts], [full(2, comm.rank)]).wait()
    assert [read(part) for part in parts] == [[0, 0], [1, 1]]
    share = full(2, -1)
    # The fake has streams only for copies; everything else that torch does happens at once.
    group.reduce_scatter_single(share, on_device(torch.full((4,), 2.0))).wait()
    assert read(share) == [4, 4]
    dist.destroy_process_group()


#: The run of torch's groups: its master, and a file for its store.
ADDRESS: list[str] = []

FACTS: dict[str, Callable[[ccl.Communicator], None]] = {
    "a tensor is reduced in place": reduce_in_place,
    "every type and shape is": reduce_all_types,
    "another tensor gets the result": reduce_out_of_place,
    "a member without a device takes part": reduce_with_the_host,
    "several tensors are one transaction": reduce_many,
    "copies are cut into segments": move_in_segments,
    "what is gathered, told and scattered goes to the device": move_without_adding,
    "results are there when somebody is told": finish_in_the_background,
    "a dropped handle's result arrives": drop_the_handle,
    "an error leaves tensors alone": leave_it_alone_on_errors,
    "shared state goes to the device where it differs": level_state,
    "torch's groups take tensors of devices": reduce_in_torch,
}


def check_all(comm: ccl.Communicator, address: str, folder: str) -> dict[str, str]:
    """The failures of all checks, by name."""
    fake_cuda.install()
    ADDRESS[:] = [address, folder]
    failures: dict[str, str] = {}
    for fact, check in FACTS.items():
        try:
            check(comm)
        except Exception:
            failures[fact] = traceback.format_exc()
        comm.barrier(tag=9)
    return failures


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    store = tmp_path_factory.mktemp("groups") / "store"
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        return run(2, check_all, master.address, str(store))


@pytest.mark.parametrize("fact", FACTS)
def test_on_a_fake_device(fact: str, failures: list[dict[str, str]]) -> None:
    for rank, of_rank in enumerate(failures):
        assert fact not in of_rank, f"on rank {rank}:\n{of_rank[fact]}"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ccl._cuda, "cuda", cuda)
    monkeypatch.setattr(ccl._cuda, "_pinned", lambda count, dtype: torch.empty(count, dtype=dtype))
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as comm:
            yield comm


def test_tensors_that_overlap_and_are_written_are_refused(alone: ccl.Communicator) -> None:
    tensor = full(4, 1)
    with pytest.raises(ccl.InvalidArgument, match="overlap"):
        alone.all_reduce_many([tensor[:3], tensor[2:]])
    alone.all_reduce_many([tensor[:2], tensor[2:]])


def test_a_device_that_fails_after_the_commit_is_an_error_each_time(alone: ccl.Communicator) -> None:
    tensor = full(4, 1)
    handle = alone.all_reduce_async(tensor)
    fake_cuda.broken.append(RuntimeError("the device is gone"))
    try:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the device is gone"):
                handle.wait()
    finally:
        fake_cuda.broken.clear()
    handle.wait()
    assert read(tensor) == [1] * 4, "it can be waited for again"


def test_pinned_memory_has_a_bound_and_is_given_back(
    alone: ccl.Communicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[int] = []

    def pin(count: int, dtype: Any) -> Any:
        pinned.append(count)
        return torch.empty(count, dtype=dtype)

    monkeypatch.setattr(ccl._cuda, "_pinned", pin)
    monkeypatch.setattr(ccl._cuda, "PINNED_BYTES_MAX", 1 << 12)
    gc.collect()
    assert ccl._cuda._pinned_bytes == 0
    for _ in range(3):
        tensors = [full(count, 1) for count in [200, 600, 100]]
        alone.all_reduce_many(tensors)
        assert [read(tensor)[0] for tensor in tensors] == [1, 1, 1]
    assert pinned == [200, 100] * 3, "what is beyond the bound is not pinned"
    gc.collect()
    assert ccl._cuda._pinned_bytes == 0
    state = ccl.SharedState({"large": full(500, 1)})
    assert state.names == ["large"] and pinned == [200, 100] * 3, "only what is used is pinned"


def test_a_checkpoint_of_a_device_is_saved_and_loaded(
    alone: ccl.Communicator, tmp_path: Path
) -> None:
    tensor = full(3, 1)
    state = ccl.SharedState({"tensor": tensor}, revision=4)
    state.save(tmp_path)
    launch(lambda plain: plain.zero_(), tensor)
    assert state.load(tmp_path) and state.revision == 4
    assert look(tensor) == [1, 1, 1]


def test_a_tensor_on_a_device_that_is_neither_is_refused(alone: ccl.Communicator) -> None:
    with pytest.raises(ccl.InvalidArgument, match=r"on meta.*tensor.cpu\(\)"):
        alone.all_reduce(torch.ones(3, device="meta"))


needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device on this machine"
)


def reduce_on_cuda(comm: ccl.Communicator) -> list[float]:
    generator = torch.Generator("cuda").manual_seed(comm.rank)
    with torch.cuda.stream(torch.cuda.Stream()):
        tensors = [torch.randn(n, device="cuda", generator=generator) for n in [1 << 22, 0, 1000]]
        hosts = [tensor.cpu() for tensor in tensors]
        product = torch.ones(2048, 2048, device="cuda")
        for _ in range(20):
            product = product @ product / 2048  # keeps the stream busy
        tensors.append(product)
        hosts.append(torch.ones(2048, 2048))
        comm.all_reduce_many(tensors)
        comm.all_reduce_many(hosts)
        doubled = [tensor * 2 for tensor in tensors]
        for ours, theirs in zip(doubled, hosts, strict=True):
            assert torch.equal(ours.cpu(), theirs * 2)
        comm.sync(ccl.SharedState({"tensors": tensors}))
        return [float(tensor.double().sum()) for tensor in tensors]


@needs_cuda
def test_a_real_device_gives_what_the_host_gives() -> None:
    first, second = run(2, reduce_on_cuda)
    assert first == second


def train_on_cuda(comm: ccl.Communicator, address: str, store: str) -> dict[str, list[float]]:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    curves: dict[str, list[float]] = {}
    for backend in ["gloo", "ccl"]:
        ccl.torch.use_master(address)
        group = dist.FileStore(f"{store}.{backend}", 2)
        dist.init_process_group(backend, store=group, rank=comm.rank, world_size=2)
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4))
        replica = DistributedDataParallel(model.cuda())
        optimizer = torch.optim.SGD(replica.parameters(), lr=0.1)
        curves[backend] = []
        for _ in range(5):
            inputs = torch.randn(32, 16).cuda() + comm.rank
            loss = (replica(inputs) - inputs[:, :4]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curves[backend].append(float(loss))
        dist.destroy_process_group()
    return curves


@needs_cuda
def test_ddp_on_a_real_device_has_the_loss_curve_of_gloo(tmp_path: Path) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        for curves in run(2, train_on_cuda, master.address, str(tmp_path / "store")):
            assert curves["ccl"] == pytest.approx(curves["gloo"], abs=1e-5)
