"""Keeps errors that torch would swallow, until an optimizer would use the failed results.

DDP only waits on futures. An error set on a future crashes the process with a segmentation fault, and
DDP never sees an error that ``Work.wait`` raises. So futures always succeed, ``Work.wait`` raises, and
the first error is raised again before any optimizer of this process takes a step.
"""

import threading
import weakref
from typing import Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

_lock = threading.Lock()


class Errors:
    """The errors of one group, kept while the group exists."""

    def __init__(self) -> None:
        self._first: BaseException | None = None
        self._is_closed = False
        #: Set whether or not the caller has already seen the error.
        self.latest: BaseException | None = None
        with _lock:
            _of_groups.add(self)

    def remember(self, error: BaseException) -> None:
        """Keeps the error for ``raise_pending``, unless an earlier one is kept already."""
        with _lock:
            if self._is_closed:
                return
            self.latest = error
            if self._first is None:
                self._first = error

    def forget(self, error: BaseException) -> None:
        """Drops the error if it is the one kept, because the caller has seen it."""
        with _lock:
            if self._first is error:
                self._first = None

    def close(self) -> None:
        """Drops the group's errors and ignores later ones, because the group has ended."""
        with _lock:
            self._first = self.latest = None
            self._is_closed = True

    def take(self) -> BaseException | None:
        """Takes the kept error. The caller holds the lock."""
        error, self._first = self._first, None
        return error


_of_groups: "weakref.WeakSet[Errors]" = weakref.WeakSet()


def raise_pending() -> None:
    """Raises the first error of a collective since the last call, if there was one.

    This runs automatically before each optimizer step. Call it before you use gradients without one.
    """
    with _lock:
        found = [error for errors in _of_groups if (error := errors.take()) is not None]
    if found:
        raise found[0]


def _before_step(*_arguments: Any) -> None:
    raise_pending()


register_optimizer_step_pre_hook(_before_step)
