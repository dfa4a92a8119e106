"""Handles in coroutines."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

_T_co = TypeVar("_T_co", covariant=True)


class _Handle(Protocol[_T_co]):
    def add_done_callback(self, callback: Callable[[], object]) -> None: ...
    def cancel(self) -> None: ...
    def wait(self) -> _T_co: ...


async def outcome(handle: _Handle[_T_co]) -> _T_co:
    """What the handle's operation ended with. Cancelling the task asks to cancel the operation."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell_loop() -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # The loop was closed; nobody waits any more.

    handle.add_done_callback(tell_loop)
    try:
        await ended
    except asyncio.CancelledError:
        handle.cancel()
        raise
    return handle.wait()
