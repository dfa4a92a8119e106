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
    """Waits for the handle's operation in a coroutine; returns its result or raises its error.

    Cancelling the task cancels the operation, and waits briefly for the verdict, so that its memory
    is free if the master can be reached.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell_loop() -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # The event loop is closed; there is no waiter left.

    handle.add_done_callback(tell_loop)
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError as error:
        handle.cancel()
        await asyncio.wait([ended], timeout=_VERDICT_SECONDS_MAX)
        if not ended.done():
            error.add_note("ccl: the memory of the cancelled call is in use until its handle is done")
        raise
    return handle.wait()


#: As long as interrupted calls wait: Ctrl-C cancels tasks too, and must take effect within 200 ms.
_VERDICT_SECONDS_MAX = 0.08
