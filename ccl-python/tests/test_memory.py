"""Memory that an operation uses stays in place, and memory that cannot be written is refused."""

import array
import gc
import mmap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import ccl
import numpy as np
import pytest
from peers import HANG_SECONDS, run


class Watched(np.ndarray[Any, np.dtype[np.float64]]):
    """An array whose release can be observed."""


class OnlyDLPack:
    """An array of a library that only supports DLPack."""

    def __init__(self, export: Callable[..., Any]) -> None:
        self.__dlpack__ = export

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def resize_array(numbers: np.ndarray[Any, Any]) -> None:
    numbers.resize(1 << 20, refcheck=False)


def grow_bytes(buffer: bytearray) -> None:
    buffer.extend(b"x" * (1 << 20))


def grow_numbers(numbers: "array.array[Any]") -> None:
    numbers.extend(range(1 << 20))


def close_map(pages: mmap.mmap) -> None:
    pages.close()


#: Memory, and what its owner must not be able to do with it now.
OWNERS: list[tuple[Callable[[], Any], Callable[[Any], None], type[Exception]]] = [
    (lambda: np.ones(8), resize_array, ValueError),
    (lambda: bytearray(64), grow_bytes, BufferError),
    (lambda: array.array("d", [1.0] * 8), grow_numbers, BufferError),
    (lambda: mmap.mmap(-1, 4096), close_map, BufferError),
]


def hold(communicator: ccl.Communicator) -> None:
    buffers = [make() for make, _, _ in OWNERS]
    if communicator.rank == 1:
        communicator.barrier()
    handle = communicator.all_reduce_many_async(buffers, tag=1)
    if communicator.rank == 0:
        # The other member calls only now, so the operation is still in progress.
        for buffer, (_, give_up, refusal) in zip(buffers, OWNERS, strict=True):
            with pytest.raises(refusal):
                give_up(buffer)
        communicator.barrier()
    handle.wait()
    gc.collect()
    del handle
    for buffer, (_, give_up, _) in zip(buffers, OWNERS, strict=True):
        give_up(buffer)


def test_owners_cannot_give_memory_up_while_an_operation_uses_it() -> None:
    run(2, hold)


def hold_in_sync(communicator: ccl.Communicator) -> None:
    buffers = [make() for make, _, _ in OWNERS]
    state = ccl.SharedState(buffers)
    if communicator.rank == 1:
        communicator.barrier()
    handle = communicator.sync_async(state)
    if communicator.rank == 0:
        for buffer, (_, give_up, refusal) in zip(buffers, OWNERS, strict=True):
            with pytest.raises(refusal):
                give_up(buffer)
        communicator.barrier()
    handle.wait()
    for buffer, (_, give_up, _) in zip(buffers, OWNERS, strict=True):
        give_up(buffer)


def test_owners_cannot_give_memory_up_while_a_sync_uses_it() -> None:
    run(2, hold_in_sync)


def drop_exporter(communicator: ccl.Communicator) -> None:
    values = np.full(100_000, 1.0).view(Watched)
    watch, is_gone = weakref.ref(values), threading.Event()
    weakref.finalize(values, is_gone.set)
    if communicator.rank == 1:
        communicator.barrier()
    handle = communicator.all_reduce_async(OnlyDLPack(values.__dlpack__), tag=1)
    del values
    gc.collect()
    if communicator.rank == 0:
        assert watch() is not None, "the operation needs it"
        communicator.barrier()
    handle.wait()
    assert is_gone.wait(HANG_SECONDS), "the operation is over"


def test_what_is_exported_by_dlpack_lives_as_long_as_its_operation() -> None:
    run(2, drop_exporter)


def export_copy(values: Any) -> OnlyDLPack:
    """As from a library that always copies."""
    return OnlyDLPack(lambda **_: values.__dlpack__(max_version=(1, 0), copy=True))


def export_as_told(values: Any) -> OnlyDLPack:
    """As from a library that can only copy, and reports that."""

    def export(*, copy: bool | None = None, **_: Any) -> Any:
        if copy is False:
            raise BufferError("this memory is elsewhere")
        return values.__dlpack__(max_version=(1, 0), copy=True)

    return OnlyDLPack(export)


@pytest.mark.parametrize("export", [export_copy, export_as_told])
def test_a_copy_is_read_and_never_written(export: Callable[[Any], OnlyDLPack]) -> None:
    values, out = np.ones(4), np.zeros(4)
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            writes: list[Callable[[], object]] = [
                lambda: communicator.all_reduce(export(values)),
                lambda: communicator.all_reduce(out, out=export(values)),
                lambda: communicator.sync(ccl.SharedState({"values": export(values)})),
            ]
            for write in writes:
                with pytest.raises(ccl.InvalidArgument, match="copy.*`out`"):
                    write()
            communicator.all_reduce(export(values), out=out)
            assert (out == 1.0).all()
