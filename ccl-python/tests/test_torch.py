"""Torch tensors and DLPack: no copies, all types, and clear refusals. Skipped without torch."""

import gc
import resource
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import ccl
import numpy as np
import pytest
from peers import run

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")

pytestmark = pytest.mark.torch

TYPES = "uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64"


def reduce_all_types(communicator: ccl.Communicator) -> None:
    for name in TYPES.split():
        for shape in [(0, 3), (), (5,), (7, 3, 2)]:
            tensor = torch.full(shape, communicator.rank + 1, dtype=getattr(torch, name))
            address = tensor.data_ptr()
            communicator.all_reduce(tensor)
            assert tensor.data_ptr() == address and tensor.shape == shape
            assert (tensor.to(torch.float64) == 3).all(), name


class OnlyDLPack:
    """An array of a library that only supports DLPack."""

    def __init__(self, array: Any, is_old: bool) -> None:
        self.array = array
        self.is_old = is_old

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **keywords: Any) -> Any:
        if self.is_old and keywords:
            raise TypeError("unknown keyword")
        return self.array.__dlpack__(**keywords)


def reduce_by_dlpack(communicator: ccl.Communicator) -> None:
    for is_old in [False, True]:
        for name in TYPES.split():
            tensor = torch.full((3, 4), 2, dtype=getattr(torch, name))
            try:
                tensor.__dlpack__()
            except (BufferError, RuntimeError):
                continue  # Torch does not export this one.
            communicator.all_reduce(OnlyDLPack(tensor, is_old), "prod")
            assert (tensor.to(torch.float64) == 4).all(), name
        part = torch.ones(4, 3)
        communicator.all_reduce(OnlyDLPack(part[1:3], is_old))
        assert part[:, 0].tolist() == [1, 2, 2, 1]
        with pytest.raises(ccl.InvalidArgument, match="contiguous"):
            communicator.all_reduce(OnlyDLPack(part.T, is_old))
        with pytest.raises(ccl.InvalidArgument, match="bool"):
            communicator.all_reduce(OnlyDLPack(torch.ones(3, dtype=torch.bool), is_old))
    fixed = np.ones(3)
    fixed.flags.writeable = False
    with pytest.raises(ccl.InvalidArgument, match="read-only"):
        communicator.all_reduce(OnlyDLPack(fixed, False))
    out = torch.zeros(3, dtype=torch.float64)
    communicator.all_reduce(OnlyDLPack(fixed, False), out=out)
    assert out.tolist() == [2, 2, 2]


def test_a_tensor_that_cannot_be_used_is_refused_with_what_to_do() -> None:
    tensor = torch.ones(4, 4)
    image = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    refused = [
        (tensor.T[1:], r"tensor.contiguous\(\)"),
        (tensor[:, 0], r"tensor.contiguous\(\)"),
        (image, r"tensor.contiguous\(\)"),
        (tensor.to_sparse(), r"tensor.to_dense\(\)"),
        (tensor.to("meta"), r"on meta.*tensor.cpu\(\)"),
        (torch.ones(4, dtype=torch.bool), "view bool as uint8"),
        (torch.ones(4, dtype=torch.complex64), "convert to one of"),
        (torch.ones(4).to(torch.float8_e4m3fn), "convert to one of"),
        (torch._neg_view(torch.ones(4)), r"tensor.resolve_neg\(\)"),
    ]
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            for buffer, advice in refused:
                with pytest.raises(ccl.InvalidArgument, match=advice):
                    communicator.all_reduce(buffer)
            freed = torch.ones(4)
            freed.untyped_storage().resize_(0)
            shortened = torch.ones(4)
            shortened.untyped_storage().resize_(12)
            for tensor in [freed, shortened]:
                with pytest.raises(ccl.InvalidArgument, match="needs 16 bytes.*freed or shortened"):
                    communicator.all_reduce(tensor)
            communicator.all_reduce(freed[:0])


def test_autograd_learns_of_the_write() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            weights = torch.nn.Parameter(torch.ones(4))
            squares = (weights * weights).sum()
            communicator.all_reduce(weights)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                squares.backward()
            with torch.inference_mode():
                communicator.all_reduce(torch.ones(4))


def reduce_large(communicator: ccl.Communicator) -> None:
    tensor = torch.ones(64 << 20, dtype=torch.uint8)
    result = torch.zeros(64 << 20, dtype=torch.uint8)
    communicator.all_reduce(tensor[:1000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    communicator.all_reduce(tensor[1000:], out=result[1000:])
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert result[1000:].eq(2).all()
    # 16 MiB are the library's scratch memory; a copy would be 64.
    assert grown_kib < 32 << 10, f"{grown_kib} KiB"


def drop_tensor(communicator: ccl.Communicator) -> None:
    if communicator.rank == 1:
        communicator.barrier()
        communicator.all_reduce(torch.ones(100_000, dtype=torch.float64), tag=1)
        return
    tensor, watch = make_watched(1.0)
    handle = communicator.all_reduce_async(tensor, tag=1)
    del tensor
    gc.collect()
    assert watch() is not None, "the operation needs it"
    communicator.barrier()
    handle.wait()
    gc.collect()
    assert watch() is None, "the operation is over"


class Watched(np.ndarray[Any, np.dtype[np.float64]]):
    """An array whose release can be observed."""


def make_watched(value: float) -> tuple[Any, Any]:
    """A tensor, and a weak reference to the owner of its memory."""
    memory = np.full(100_000, value).view(Watched)
    return torch.from_numpy(memory), weakref.ref(memory)


def replace_data(module: Any) -> None:
    module.weight.data = torch.zeros(3)


def convert(module: Any) -> None:
    module.to(torch.float32)


def set_storage(module: Any) -> None:
    module.weight.detach_().set_()


def swap(module: Any) -> None:
    torch.utils.swap_tensors(module.weight, torch.nn.Parameter(torch.zeros(3)))


REPLACEMENTS = [replace_data, convert, set_storage, swap]


def make_module() -> tuple[Any, Any]:
    module = torch.nn.Module()
    tensor, watch = make_watched(1.0)
    module.weight = torch.nn.Parameter(tensor)
    return module, watch


def replace_in_operation(communicator: ccl.Communicator) -> None:
    if communicator.rank == 1:
        communicator.barrier()
        for _ in REPLACEMENTS:
            communicator.all_reduce(np.full(100_000, 2.0), tag=1)
        return
    for replace in REPLACEMENTS:
        module, watch = make_module()
        handle = communicator.all_reduce_async(module.weight, tag=1)
        replace(module)
        gc.collect()
        assert watch() is not None, f"{replace.__name__}: the operation needs it"
        if replace is REPLACEMENTS[0]:
            communicator.barrier()
        handle.wait()
        gc.collect()
        assert watch() is None, f"{replace.__name__}: the operation is over"


def replace_in_sync(communicator: ccl.Communicator) -> None:
    for replace in REPLACEMENTS:
        module, watch = make_module()
        if communicator.rank == 1:
            communicator.barrier()
        handle = communicator.sync_async(ccl.SharedState(module))
        replace(module)
        gc.collect()
        assert watch() is not None or handle.done(), f"{replace.__name__}: the sync needs it"
        if communicator.rank == 0:
            assert not handle.done()
            communicator.barrier()
        handle.wait()
        gc.collect()
        assert watch() is None, f"{replace.__name__}: the sync is over"


FACTS: dict[str, Callable[[ccl.Communicator], None]] = {
    "every type of torch is reduced in place": reduce_all_types,
    "what speaks only DLPack is reduced in place": reduce_by_dlpack,
    "a tensor lives as long as its operation": drop_tensor,
    "memory that a tensor gave up lives as long as its operation": replace_in_operation,
    "memory that a tensor gave up lives as long as its sync": replace_in_sync,
    "large tensors are not copied": reduce_large,
}


def check_all(communicator: ccl.Communicator) -> dict[str, str]:
    """The failures of all checks, by name. They share one process, because importing torch is slow."""
    failures: dict[str, str] = {}
    for fact, check in FACTS.items():
        try:
            check(communicator)
        except Exception:
            failures[fact] = traceback.format_exc()
        communicator.barrier(tag=9)
    return failures


@pytest.fixture(scope="module")
def failures() -> list[dict[str, str]]:
    return run(2, check_all)


@pytest.mark.parametrize("fact", FACTS)
def test_between_two_processes(fact: str, failures: list[dict[str, str]]) -> None:
    for rank, of_rank in enumerate(failures):
        assert fact not in of_rank, f"on rank {rank}:\n{of_rank[fact]}"
