"""Waits for syncs of shared state: Ctrl-C, handles, memory that must live, forks and exits."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import ccl
import numpy as np
import pytest
from peers import HANG_SECONDS, Pipe, connect, run, started
from test_waits import interrupt, interrupted

MIB = 1 << 20


def interrupt_syncs(pipe: Pipe, address: str, is_late: bool) -> list[float]:
    with connect(address, 2) as communicator:
        value = np.full(100_000, float(is_late))
        state = ccl.SharedState({"value": value})
        if is_late:
            pipe.wait()
            for _ in range(2):
                with pytest.raises(ccl.Cancelled):
                    communicator.sync(state)
        else:
            pipe.say(interrupted(pipe, lambda: communicator.sync(state)))
            assert state.is_usable and (value == 0.0).all()
            handle = communicator.sync_async(state)
            pipe.say(interrupted(pipe, handle.wait))
            with pytest.raises(ccl.InvalidUsage, match="in progress"):
                communicator.sync(state)
            with pytest.raises(ccl.InvalidUsage, match="another sync"):
                communicator.sync(ccl.SharedState({"other": bytearray(8)}))
            with pytest.raises(ccl.InvalidUsage, match="in progress"):
                state.revision = 3
            handle.cancel()
            with pytest.raises(ccl.Cancelled):
                handle.wait()
            pipe.say("cancelled")
        communicator.all_reduce(bytearray(8))
        info = communicator.sync(state)
        assert info.root == state.root()
        return [float(value[0]), float(value[-1])]


def test_ctrl_c_ends_a_sync_and_state_and_communicator_go_on() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with (
            started(1, interrupt_syncs, master.address, False) as [early],
            started(1, interrupt_syncs, master.address, True) as [late],
        ):
            interrupt(early)
            interrupt(early)
            assert early.receive() == "cancelled"
            late.pipe.send("go on")
            ended = early.receive()
            assert ended == late.receive() and ended in ([0.0, 0.0], [1.0, 1.0])


def interrupt_hashing(pipe: Pipe, address: str) -> int:
    # Hashing a gigabyte takes longer than Ctrl-C may.
    value = np.zeros(1 << 30, dtype=np.uint8)
    value[::4096] = 1
    state = ccl.SharedState({"value": value})
    with connect(address, 2) as communicator:
        pipe.say(interrupted(pipe, lambda: communicator.sync(state)))
        # It waits for the cancelled sync, which needs the memory until it has ended.
        with pytest.raises(ccl.Cancelled):
            communicator.sync(state, deadline=0.01)
    return 0


def test_ctrl_c_is_answered_while_a_large_state_is_hashed() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, interrupt_hashing, master.address) as [peer]:
            with ccl.Communicator(master.address, initial_world_size=2):
                interrupt(peer)
                assert peer.receive() == 0


class Watched(np.ndarray[Any, np.dtype[np.float64]]):
    """An array whose release can be observed."""


def drop_everything(communicator: ccl.Communicator) -> None:
    rank = communicator.rank
    value = np.full(4_000_000, float(rank)).view(Watched)
    own = {"step": rank}
    watch, is_gone = weakref.ref(value), threading.Event()
    weakref.finalize(value, is_gone.set)
    if rank == 1:
        communicator.barrier()
    state = ccl.SharedState([{"value": value}, own])
    watch_state = weakref.ref(state)
    communicator.sync_async(state)
    del value, state
    gc.collect()
    if rank == 0:
        assert watch_state() is None, "nobody needs it"
        assert watch() is not None, "the sync needs it"
        communicator.barrier()
    assert is_gone.wait(HANG_SECONDS), "the sync is over"
    assert own["step"] == 0


def test_a_dropped_handle_lets_the_sync_go_on_and_frees_the_memory_after() -> None:
    run(2, drop_everything)


def sync_after_a_dropped_one(pipe: Pipe, address: str, is_late: bool) -> tuple[int, str]:
    with connect(address, 2) as communicator:
        state = ccl.SharedState({"value": np.full(1000, float(is_late))})
        if is_late:
            pipe.wait()
            communicator.sync(state)
        else:
            handle = communicator.sync_async(state)
            with pytest.raises(ccl.InvalidUsage, match="wait for it, or cancel it"):
                communicator.sync(state)
            del handle
            gc.collect()
            pipe.say("dropped")
            state.revision = 1
        info = communicator.sync(state)
        communicator.barrier()
        return info.revision, info.op


def test_a_sync_waits_for_one_whose_handle_is_dropped() -> None:
    """Drops the handle, so that the caller can neither wait for the sync nor cancel it."""
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with (
            started(1, sync_after_a_dropped_one, master.address, False) as [early],
            started(1, sync_after_a_dropped_one, master.address, True) as [late],
        ):
            assert early.receive() == "dropped"
            late.pipe.send("go on")
            ended = early.receive()
            assert ended == late.receive()


async def level_in_coroutine(
    communicator: ccl.Communicator, state: ccl.SharedState
) -> ccl.SyncInfo:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticker = asyncio.create_task(tick())
    info = await communicator.sync_async(state)
    ticker.cancel()
    assert ticks > 0
    return info


def use_handles(communicator: ccl.Communicator) -> None:
    rank = communicator.rank
    value = np.full(MIB, rank, dtype=np.uint8)
    state = ccl.SharedState({"value": value})
    told = threading.Event()
    if rank == 0:
        handle = communicator.sync_async(state)
        with pytest.raises(ccl.Timeout, match="goes on"):
            handle.wait(timeout=0.01)
        assert not handle.done() and handle.is_source is None
        handle.add_done_callback(told.set)
        communicator.barrier()
    else:
        communicator.barrier()
        handle = communicator.sync_async(state)
    info = handle.wait(HANG_SECONDS)
    assert handle.done() and handle.wait().root == info.root
    assert handle.is_source == (rank == 0), "what was true at the end stays"
    progress = handle.progress()
    if rank == 1:
        assert progress.done_bytes == progress.total_bytes >= MIB
        assert (value == 0).all() and info.received_bytes >= MIB
    else:
        assert progress.done_bytes >= MIB and told.wait(HANG_SECONDS)
    handle.add_done_callback(told.set)
    assert told.wait(HANG_SECONDS)
    value[:] = rank
    assert asyncio.run(level_in_coroutine(communicator, state)).root == state.root()


def test_a_handle_waits_polls_tells_and_is_awaited() -> None:
    run(2, use_handles)


def cancel_halfway(_pipe: Pipe, address: str) -> None:
    slow = 8 * MIB
    with ccl.Communicator(
        address, initial_world_size=2, connect_timeout=HANG_SECONDS, state_bytes_per_second=slow
    ) as communicator:
        rank = communicator.rank
        value = np.full(16 * MIB, rank, dtype=np.uint8)
        state = ccl.SharedState({"value": value})
        handle = communicator.sync_async(state)
        while handle.progress().done_bytes == 0:
            time.sleep(0.001)
        assert handle.is_source == (rank == 0)
        if rank == 1:
            assert handle.progress().done_bytes < handle.progress().total_bytes == 16 * MIB
            handle.cancel()
        with pytest.raises(ccl.Cancelled):
            handle.wait()
        assert handle.is_source == (rank == 0)
        assert 0 < handle.progress().done_bytes < 16 * MIB
        assert state.is_usable == (rank == 0), "what one has is a mixture of two contents"
        if rank == 1:
            assert 0 < value.sum() < value.size
            with pytest.raises(ccl.InvalidUsage, match="mixture"):
                state.save("never-written")
        info = communicator.sync(state)
        assert state.is_usable and (value == 0).all()
        assert info.received_bytes < 16 * MIB, "what was verified stays"
        communicator.barrier()


def test_a_sync_that_ends_halfway_leaves_a_mixture_that_can_only_receive() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(2, cancel_halfway, master.address) as peers:
            assert [peer.receive() for peer in peers] == [None, None]


def fork_during_sync(_pipe: Pipe, address: str) -> int:
    with connect(address, 2) as communicator:
        state = ccl.SharedState({"a": bytearray(8)})
        handle = communicator.sync_async(state)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(ccl.Forked):
                    handle.wait()
                with pytest.raises(ccl.Forked):
                    communicator.sync(state)
                with pytest.raises(ccl.Forked):
                    state.root()
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        handle.cancel()
        with pytest.raises(ccl.Cancelled):
            handle.wait()
        return os.waitstatus_to_exitcode(ended)


def test_a_forked_child_does_not_wait_for_its_parents_sync() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, fork_during_sync, master.address) as [peer]:
            with ccl.Communicator(master.address, initial_world_size=2):
                assert peer.receive() == 0


def sync_at_exit(_pipe: Pipe, address: str) -> None:
    communicator = connect(address, 2)
    FORGOTTEN.append((communicator, communicator.sync_async(ccl.SharedState({"a": bytearray(9)}))))


FORGOTTEN: list[Any] = []


def test_a_process_may_end_with_a_sync_under_way() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, sync_at_exit, master.address) as [peer]:
            with ccl.Communicator(master.address, initial_world_size=2):
                assert peer.receive() is None
                peer.process.join(HANG_SECONDS)
                assert peer.process.exitcode == 0


def refuse_from_many_threads(_pipe: Pipe, address: str) -> set[str]:
    with connect(address, 2) as communicator:
        state = ccl.SharedState({"a": bytearray(8)})
        communicator.all_reduce_async(bytearray(4), deadline=0.001).add_done_callback(lambda: None)
        handle = communicator.sync_async(state)

        def refuse() -> None:
            for _ in range(2000):
                with pytest.raises(ccl.InvalidUsage):
                    state.revision = 3

        sys.setswitchinterval(1e-6)
        threads = [threading.Thread(target=refuse) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = threads_that_take_no_signal()
        handle.cancel()
        with pytest.raises(ccl.Cancelled):
            handle.wait()
        return names


def threads_that_take_no_signal() -> set[str]:
    names = set()
    for task in Path("/proc/self/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        if status["Name"].startswith("ccl-"):
            blocked = int(status["SigBlk"], 16)
            assert blocked >> (signal.SIGINT - 1) & 1, f"{status['Name']} takes Ctrl-C"
            names.add(status["Name"])
    return names


def test_many_threads_are_refused_during_a_sync_and_the_librarys_take_no_signal() -> None:
    """Exceptions are created by Python code, so another thread may run during the creation of one."""
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(1, refuse_from_many_threads, master.address) as [peer]:
            with ccl.Communicator(master.address, initial_world_size=2):
                assert {"ccl-notify", "ccl-sync"} <= peer.receive()
