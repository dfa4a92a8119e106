"""Errors that torch would swallow, kept until a step would use what they spoiled.

DDP waits on futures only: an error set on one ends the process by a segmentation fault, and one that
``Work.wait`` raises is never seen. So futures always succeed, ``Work.wait`` raises, and the first
error is raised again before an optimizer of this process takes a step.
"""

import threading
import weakref
from typing import Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

_lock = threading.Lock()


class Errors:
    """What went wrong in one group, as long as there is the group."""

    def __init__(self) -> None:
        self._first: BaseException | None = None
        self._is_closed = False
        #: Whether or not the caller has been told.
        self.latest: BaseException | None = None
        with _lock:
            _of_groups.add(self)

    def remember(self, error: BaseException) -> None:
        """Keeps it for ``raise_pending``; the first one counts."""
        with _lock:
            if self._is_closed:
                return
            self.latest = error
            if self._first is None:
                self._first = error

    def forget(self, error: BaseException) -> None:
        """Drops it if it is the one kept: the caller has been told."""
        with _lock:
            if self._first is error:
                self._first = None

    def close(self) -> None:
        """The group is gone: nobody is told any more what goes or went wrong in it."""
        with _lock:
            self._first = self.latest = None
            self._is_closed = True

    def take(self) -> BaseException | None:
        """The one that is kept, which is not any more. The lock is held."""
        error, self._first = self._first, None
        return error


_of_groups: "weakref.WeakSet[Errors]" = weakref.WeakSet()


def raise_pending() -> None:
    """Raises the first error of a collective since the last time, if there was one.

    Called before each optimizer step by itself. Call it where gradients are used otherwise.
    """
    with _lock:
        found = [error for errors in _of_groups if (error := errors.take()) is not None]
    if found:
        raise found[0]


def _before_step(*_arguments: Any) -> None:
    raise_pending()


register_optimizer_step_pre_hook(_before_step)
