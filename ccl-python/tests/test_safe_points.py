"""Safe points without waiting: polled, awaited, and withdrawn."""

import asyncio
import gc
import threading

import ccl
from peers import HANG_SECONDS, Pipe, connect, run, started


def come_alone(pipe: Pipe, address: str) -> int:
    """The first of two members, while a newcomer is ready: it is not released without the other."""
    with connect(address, 2) as communicator:
        pipe.say(communicator.rank)
        if pipe.wait() == "second":
            while communicator.world_size < 3:
                communicator.update_topology()
            return meet(communicator)
        while not is_withdrawn(communicator.update_topology_async()):
            pass
        dropped = communicator.update_topology_async()
        del dropped
        gc.collect()
        pipe.say("withdrawn")
        while communicator.world_size < 3:
            view = asyncio.run(await_point(communicator))
            assert view.epoch == communicator.epoch
        return meet(communicator)


def is_withdrawn(point: ccl.SafePoint) -> bool:
    """Safe points are released at once as long as no newcomer is ready; then one waits."""
    told = threading.Event()
    point.add_done_callback(told.set)
    try:
        point.wait(0.3)
        return False
    except ccl.Timeout:
        point.cancel()
    assert told.wait(HANG_SECONDS) and point.done()
    try:
        point.wait()
        return False  # The other was only slow.
    except ccl.Timeout:
        return True


async def await_point(communicator: ccl.Communicator) -> ccl.View:
    return await communicator.update_topology_async()


def join(_pipe: Pipe, address: str) -> int:
    with connect(address, 2) as communicator:
        return meet(communicator)


def meet(communicator: ccl.Communicator) -> int:
    """Waits until all have seen all, before any leaves."""
    communicator.barrier()
    return communicator.world_size


def test_a_safe_point_is_polled_withdrawn_and_awaited() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(2, come_alone, master.address) as members:
            ranks = [member.receive() for member in members]
            first, second = members[ranks.index(0)], members[ranks.index(1)]
            with started(1, join, master.address) as [newcomer]:
                first.pipe.send("first")
                assert first.receive() == "withdrawn"
                second.pipe.send("second")
                assert first.receive() == second.receive() == newcomer.receive() == 3


async def cancel_task(communicator: ccl.Communicator) -> None:
    task = asyncio.create_task(await_point(communicator))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


def cancel_and_go_on(communicator: ccl.Communicator) -> None:
    asyncio.run(cancel_task(communicator))
    communicator.barrier()
    assert communicator.update_topology().members == communicator.view.members


def test_cancelling_a_task_comes_back_from_its_safe_point() -> None:
    run(2, cancel_and_go_on)


def test_a_master_is_told_to_stop_without_waiting_for_it() -> None:
    master = ccl.Master(listen="127.0.0.1:0", new_run=True)
    assert not master.ended
    master.stop()
    master.wait(HANG_SECONDS)
    assert master.ended
