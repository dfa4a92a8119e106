"""Operations of a group as torch waits for them."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import ccl
from ccl import _cuda
from ccl.torch import _errors


class Work(dist._Work):
    """An operation under way, finished by the library's notifying thread."""

    def __init__(
        self,
        start: Callable[[], ccl.Handle] | None,
        tensors: list[torch.Tensor],
        finish: Callable[[ccl.Outcome], object] | None = None,
    ) -> None:
        """``finish`` says by ``False`` that it has to be started again."""
        super().__init__()
        self._start = start
        self._handle = None if start is None else start()
        self._tensors = tensors
        self._finish = finish
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._future = _cuda.future(tensors)
        if self._handle is None:
            self._tell()
        else:
            self._handle.add_done_callback(self._settle)

    def _settle(self) -> None:
        is_over = True
        try:
            is_over = self._take_result()
        except BaseException as error:
            self._error = error
            _errors.remember(error)
        if is_over:
            self._start = None
            self._handle = None
            self._finish = None
            self._tell()

    def _take_result(self) -> bool:
        assert self._handle is not None and self._start is not None
        outcome = self._handle.wait()
        if self._finish is not None:
            if self._finish(outcome) is False:
                self._handle = self._start()
                self._handle.add_done_callback(self._settle)
                return False
            _cuda.synchronize(self._tensors)  # whoever waits has a stream of its own
        return True

    def _tell(self) -> None:
        self._ended.set()
        self._future.set_result(self._tensors)

    def wait_for_end(self) -> None:
        """Waits until it has ended, whatever came of it."""
        self._ended.wait()

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Waits; raises what went wrong."""
        if timeout > timedelta(0):
            if not self._ended.wait(timeout.total_seconds()):
                raise ccl.Timeout("not finished within the given time; the operation goes on")
        self.wait_for_end()
        if self._error is not None:
            _errors.forget(self._error)
            raise self._error
        return True

    def synchronize(self) -> None:
        self.wait()

    def is_completed(self) -> bool:
        return self._ended.is_set()

    def is_success(self) -> bool:
        return self._ended.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        return self._error

    def result(self) -> list[torch.Tensor]:
        self.wait()
        return self._tensors

    def get_future(self) -> Any:
        return self._future
