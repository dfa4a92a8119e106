"""Waits: they let other threads run, end on Ctrl-C, and keep memory alive."""

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import ccl
import numpy as np
import pytest
from peers import HANG_SECONDS, Peer, Pipe, connect, run, started

#: On an idle machine Ctrl-C takes a quarter of this.
ANSWER_SECONDS = 0.2


def interrupted(pipe: Pipe, call: Callable[[], object]) -> float:
    """Makes a call that the test ends with SIGINT; returns when that was noticed.

    The thread that asks the test for the signal runs only once the call releases the GIL.
    """
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(HANG_SECONDS)
    about_to_call = threading.Event()

    def tell() -> None:
        about_to_call.wait()
        pipe.say("blocked")

    teller = threading.Thread(target=tell)
    teller.start()
    about_to_call.set()
    try:
        call()
    except KeyboardInterrupt:
        noticed = time.monotonic()
    else:
        raise AssertionError("the call ended by itself")
    sys.setswitchinterval(switch_interval)
    teller.join()
    return noticed


def interrupt(peer: Peer) -> None:
    """Sends SIGINT once the peer is blocked, and checks how soon it reacted."""
    assert peer.receive() == "blocked"
    sent = time.monotonic()
    peer.signal(signal.SIGINT)
    assert peer.receive() - sent < ANSWER_SECONDS


def interrupt_connect(pipe: Pipe, address: str) -> int:
    missing = "127.0.0.1:9"
    pipe.say(interrupted(pipe, lambda: ccl.Communicator(missing)))
    pipe.say(interrupted(pipe, lambda: ccl.Communicator(address, min_world_size=2)))
    with ccl.Communicator(address) as communicator:
        communicator.barrier()
        return communicator.world_size


def test_ctrl_c_ends_connect_with_and_without_a_master() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, interrupt_connect, master.address) as [peer]:
            interrupt(peer)
            interrupt(peer)
            assert peer.receive() == 1


def wait_noting(handle: ccl.Handle, noted: list[str]) -> None:
    """Waits, and returns what the interruption says about the operation."""
    try:
        handle.wait()
    except KeyboardInterrupt as interruption:
        noted += interruption.__notes__
        raise


def interrupt_calls(pipe: Pipe, address: str, is_late: bool) -> list[float]:
    with connect(address, 2) as communicator:
        values = np.full(1000, 1.0)
        if is_late:
            pipe.wait()
            for tag in (0, 1):
                with pytest.raises(ccl.Cancelled):
                    communicator.all_reduce(values, tag=tag)
        else:
            pipe.say(interrupted(pipe, lambda: communicator.all_reduce(values)))
            assert values[0] == 1.0, "the input is intact"
            handle = communicator.all_reduce_async(values, tag=1)
            noted: list[str] = []
            pipe.say(interrupted(pipe, lambda: wait_noting(handle, noted)))
            assert not handle.done() and "cancel()" in noted[0]
            handle.cancel()
            with pytest.raises(ccl.Cancelled):
                handle.wait()
            pipe.say("cancelled")
        communicator.all_reduce(values)
        return [float(values[0]), float(values[-1])]


def test_ctrl_c_ends_a_collective_and_the_communicator_goes_on() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with (
            started(1, interrupt_calls, master.address, False) as [early],
            started(1, interrupt_calls, master.address, True) as [late],
        ):
            interrupt(early)
            interrupt(early)
            assert early.receive() == "cancelled"
            late.pipe.send("go on")
            assert early.receive() == late.receive() == [2.0, 2.0]


def call_after_a_dropped_handle(pipe: Pipe, address: str, is_late: bool) -> list[float]:
    with connect(address, 2) as communicator:
        dropped, values = np.full(10, 1.0), np.full(1000, 1.0)
        if is_late:
            pipe.wait()
            communicator.all_reduce(dropped)
        else:
            communicator.all_reduce_async(dropped)
            gc.collect()
            pipe.say("dropped")
        communicator.all_reduce(values)
        return [float(dropped[0]), float(values[0])]


def test_a_call_waits_for_the_operation_of_a_dropped_handle_under_its_tag() -> None:
    """Drops the handle, so that the caller can neither wait for the operation nor cancel it."""
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with (
            started(1, call_after_a_dropped_handle, master.address, False) as [early],
            started(1, call_after_a_dropped_handle, master.address, True) as [late],
        ):
            assert early.receive() == "dropped"
            late.pipe.send("go on")
            assert early.receive() == late.receive() == [2.0, 2.0]


def interrupt_safe_point(pipe: Pipe, address: str) -> int:
    with connect(address, 2) as communicator:
        pipe.say(communicator.rank)
        pipe.wait()
        if communicator.rank == 0:
            # Safe points are released at once until the newcomer is ready; then one blocks.
            entered = [time.monotonic()]

            def tell_when_blocked() -> None:
                while time.monotonic() - entered[0] < 0.3:
                    time.sleep(0.01)
                pipe.say("blocked")

            teller = threading.Thread(target=tell_when_blocked)
            teller.start()
            try:
                while True:
                    entered[0] = time.monotonic()
                    communicator.update_topology()
            except KeyboardInterrupt:
                pipe.say(time.monotonic())
            pipe.wait()
        while communicator.world_size < 3:
            communicator.update_topology()
        communicator.barrier()
        return communicator.world_size


def join_late(_pipe: Pipe, address: str) -> int:
    with connect(address, 2) as communicator:
        communicator.barrier()
        return communicator.world_size


def test_ctrl_c_ends_a_safe_point_which_is_not_used_up() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(2, interrupt_safe_point, master.address) as members:
            first, second = sorted(members, key=Peer.receive)
            with started(1, join_late, master.address) as [newcomer]:
                first.pipe.send("go on")
                interrupt(first)
                first.pipe.send("go on")
                second.pipe.send("go on")
                assert [peer.receive() for peer in (first, second, newcomer)] == [3, 3, 3]


def interrupt_master(pipe: Pipe) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        pipe.say(interrupted(pipe, master.wait))
    assert master.ended


def test_ctrl_c_ends_a_master_that_serves() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, interrupt_master) as [peer]:
            interrupt(peer)
            assert peer.receive() is None
        assert not master.ended


def let_others_run(communicator: ccl.Communicator) -> None:
    if communicator.rank == 1:
        communicator.barrier(tag=1)
        communicator.barrier()
        return
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while ticks < 1000:
            ticks += 1
        communicator.barrier(tag=1)

    # The other member reaches the barrier only after this thread has run.
    ticker = threading.Thread(target=tick)
    ticker.start()
    communicator.barrier()
    assert ticks == 1000
    ticker.join()


def test_a_blocked_call_lets_other_threads_run() -> None:
    run(2, let_others_run)


def use_handles(communicator: ccl.Communicator) -> None:
    rank = communicator.rank
    values = np.full(1000, rank, dtype=np.float32)
    told = threading.Event()
    if rank == 0:
        handle = communicator.all_reduce_async(values, tag=1)
        with pytest.raises(ccl.Timeout, match="goes on"):
            handle.wait(timeout=0.01)
        assert not handle.done()
        handle.add_done_callback(told.set)
        communicator.barrier()
    else:
        communicator.barrier()
        handle = communicator.all_reduce_async(values, tag=1)
    outcome = handle.wait(HANG_SECONDS)
    assert handle.done() and handle.wait().op == outcome.op
    assert (values == 1).all()
    progress = handle.progress()
    assert progress.done_bytes == progress.total_bytes
    if rank == 0:
        assert told.wait(HANG_SECONDS)
    handle.add_done_callback(told.set)
    assert told.wait(HANG_SECONDS)


def test_a_handle_waits_polls_and_tells() -> None:
    run(2, use_handles)


def block_callbacks(communicator: ccl.Communicator) -> None:
    """Each callback waits for an operation that the next one starts."""
    last = 20
    told = [threading.Event() for _ in range(last + 1)]

    def begin(number: int) -> None:
        handle = communicator.barrier_async(tag=number)
        handle.add_done_callback(lambda: follow(number))

    def follow(number: int) -> None:
        if number < last:
            begin(number + 1)
            assert told[number + 1].wait(HANG_SECONDS)
        told[number].set()

    begin(0)
    assert told[0].wait(HANG_SECONDS)


def test_callbacks_may_wait_for_what_later_callbacks_tell() -> None:
    run(2, block_callbacks)


async def reduce_at_once(communicator: ccl.Communicator) -> list[float]:
    values = [np.full(1000, float(tag)) for tag in range(8)]
    handles = [
        communicator.all_reduce_async(value, tag=tag) for tag, value in enumerate(values)
    ]

    async def outcome(handle: ccl.Handle) -> ccl.Outcome:
        return await handle

    handles.append(communicator.barrier_async(tag=8))
    outcomes = await asyncio.gather(*(outcome(handle) for handle in handles))
    assert all(outcome.world_size == 2 for outcome in outcomes)
    return [float(value[0]) for value in values]


def await_handles(communicator: ccl.Communicator) -> None:
    assert asyncio.run(reduce_at_once(communicator)) == [2.0 * tag for tag in range(8)]


def test_handles_are_awaited_together() -> None:
    run(2, await_handles)


async def await_and_cancel(handle: ccl.Handle) -> None:
    async def outcome() -> ccl.Outcome:
        return await handle

    task = asyncio.create_task(outcome())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert handle.done() or "in use" in caught.value.__notes__[0]


def cancel_task(communicator: ccl.Communicator) -> None:
    if communicator.rank == 0:
        handle = communicator.all_reduce_async(bytearray(8))
        asyncio.run(await_and_cancel(handle))
        with pytest.raises(ccl.Cancelled):
            handle.wait()
        communicator.barrier(tag=1)
    else:
        communicator.barrier(tag=1)
        with pytest.raises(ccl.Cancelled):
            communicator.all_reduce(bytearray(8))


def test_cancelling_a_task_cancels_its_operation() -> None:
    run(2, cancel_task)


class Watched(np.ndarray[Any, np.dtype[np.float64]]):
    """An array whose release can be observed."""


def drop_everything(communicator: ccl.Communicator) -> None:
    if communicator.rank == 1:
        communicator.barrier()
        communicator.all_reduce(np.full(1_000_000, 2.0), tag=1)
        return
    values = np.full(1_000_000, 1.0).view(Watched)
    watch, is_gone = weakref.ref(values), threading.Event()
    weakref.finalize(values, is_gone.set)
    result = np.empty(1_000_000)
    communicator.all_reduce_async(values, out=result, tag=1)
    del values
    gc.collect()
    assert watch() is not None, "the operation needs it"
    communicator.barrier()
    assert is_gone.wait(HANG_SECONDS), "the operation is over"
    assert (result == 3.0).all()


def test_a_dropped_handle_lets_the_operation_go_on_and_frees_the_memory_after() -> None:
    run(2, drop_everything)


def fork(pipe: Pipe, address: str) -> int:
    with connect(address, 1) as communicator:
        communicator.barrier()
        told = threading.Event()
        handle = communicator.all_reduce_async(bytearray(8))
        handle.add_done_callback(told.set)
        handle.wait()
        assert told.wait(HANG_SECONDS)
        told.clear()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(ccl.Forked, match="after fork"):
                    communicator.barrier()
                with pytest.raises(ccl.Forked):
                    communicator.update_topology()
                communicator.close()
                del communicator, handle
                gc.collect()
                with ccl.Communicator(address, connect_timeout=HANG_SECONDS) as own:
                    barrier = own.barrier_async()
                    barrier.add_done_callback(told.set)
                    barrier.wait()
                    assert told.wait(HANG_SECONDS), "by a thread of the child's own"
                    status = 0
            finally:
                os._exit(status)
        while communicator.world_size < 2:
            communicator.update_topology()
        communicator.barrier()
        _, ended = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(ended)


def test_a_forked_child_is_told_so_and_makes_its_own() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, fork, master.address) as [peer]:
            assert peer.receive() == 0


FORGOTTEN: list[ccl.Communicator] = []


def leave_at_exit(pipe: Connection, address: str) -> None:
    FORGOTTEN.append(connect(address, 2))
    pipe.recv()


def see_it_leave(pipe: Pipe, address: str) -> str | None:
    with connect(address, 2) as communicator:
        handle = communicator.all_reduce_async(bytearray(4))
        pipe.say("called")
        with pytest.raises(ccl.PeerLost) as caught:
            handle.wait()
        return caught.value.reason


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_process_that_ends_leaves_its_run(start: str) -> None:
    """Forked processes, such as many workers of torch, end differently from others."""
    processes: Any = multiprocessing.get_context(start)
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        pipe, theirs = processes.Pipe()
        going = processes.Process(target=leave_at_exit, args=(theirs, master.address), daemon=True)
        going.start()
        try:
            with started(1, see_it_leave, master.address) as [staying]:
                assert staying.receive() == "called"
                pipe.send("go")
                assert "left" in staying.receive()
        finally:
            going.kill()
            going.join()
