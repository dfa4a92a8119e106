"""Handles in coroutines."""

import asyncio

from ccl._native import Handle, Outcome


async def outcome(handle: Handle) -> Outcome:
    """The handle's outcome. Cancelling the task asks to cancel the operation."""
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
