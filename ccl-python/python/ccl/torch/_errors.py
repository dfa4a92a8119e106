"""Errors that torch would swallow, kept until a step would use what they spoiled.

DDP waits on futures only: an error set on one ends the process by a segmentation fault, and one that
``Work.wait`` raises is never seen. So futures always succeed, ``Work.wait`` raises, and the first
error is raised again before an optimizer of this process takes a step.
"""

import threading
from typing import Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

_lock = threading.Lock()
_pending: BaseException | None = None


def remember(error: BaseException) -> None:
    """Keeps it for ``raise_pending``; the first one counts."""
    global _pending
    with _lock:
        if _pending is None:
            _pending = error


def raise_pending() -> None:
    """Raises the first error of a collective since the last time, if there was one.

    Called before each optimizer step by itself. Call it where gradients are used otherwise.
    """
    global _pending
    with _lock:
        error, _pending = _pending, None
    if error is not None:
        raise error


def forget(error: BaseException) -> None:
    """Drops it if it is the one kept: the caller has been told."""
    global _pending
    with _lock:
        if _pending is error:
            _pending = None


def _before_step(*_arguments: Any) -> None:
    raise_pending()


register_optimizer_step_pre_hook(_before_step)
