"""Works: operations of a group that torch can wait for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import ccl
from ccl import _cuda
from ccl._native import uninterrupted
from ccl.torch._future import Future
from ccl.torch._order import Counts, Operation, Spans


@dataclass(frozen=True)
class Tensors:
    """The tensors that a call uses."""

    #: The result of `Work.result` and of the future.
    result: list[torch.Tensor]
    reads: Sequence[torch.Tensor] = ()
    writes: Sequence[torch.Tensor] = ()


class Work(dist._Work):  # type: ignore[name-defined]
    """An operation from its post to its end, started and finished by threads of the library."""

    def __init__(
        self,
        counts: Counts,
        tensors: Tensors,
        start: Callable[[int], ccl.Handle | None],
        finish: Callable[[ccl.Outcome | None], object] | None,
    ) -> None:
        """``start`` starts it on a lane, with the tensors' content at that time, or returns ``None`` if
        it needs no other member. ``finish`` produces the result, or returns ``False`` to have all
        members start again.
        """
        super().__init__()
        self._start = start
        self._finish = finish
        self._result = tensors.result
        self._handle: ccl.Handle | None = None
        self._error: BaseException | None = None
        self._future = Future(_cuda.devices(tensors.result), counts)
        used = [*tensors.result, *tensors.reads, *tensors.writes]
        self._streams = _cuda.current_streams(used)
        spans = Spans(tensors.reads, tensors.writes)
        self._operation = Operation(counts, spans, self._begin)
        self._operation.post()

    def _begin(self) -> None:
        try:
            # The operation reads what was queued on the caller's streams before.
            with _cuda.on_streams(self._streams):
                handle = self._start(self._operation.lane)
        except BaseException as error:
            is_told = not self._operation.is_deferred
            self._end(None if is_told else error)
            if is_told:
                raise
            return
        self._follow(handle)

    def _follow(self, handle: ccl.Handle | None) -> None:
        self._handle = handle
        if handle is None:
            self._settle()
        else:
            handle.call_when_done(self._settle)

    def _settle(self) -> None:
        """Ends the work, or starts its next operation, when the communicator's operation has ended."""
        try:
            again = self._take_result()
        except BaseException as error:
            self._end(error)
            return
        if again is None:
            self._end(None)
        else:
            self._follow(again)

    def _take_result(self) -> ccl.Handle | None:
        """Takes the result. Returns the next operation if the work needs another one."""
        outcome = None if self._handle is None else self._handle.wait()
        if self._finish is None:
            return None
        with torch.inference_mode(any(tensor.is_inference() for tensor in self._result)):
            is_over = self._finish(outcome) is not False
        if not is_over:
            return self._start(self._operation.lane)
        _cuda.synchronize(self._result)  # the waiting thread has its own current stream
        return None

    def _end(self, error: BaseException | None) -> None:
        if error is not None:
            self._error = error
            self._operation.counts.errors.remember(error)
        self._handle = None
        del self._start, self._finish  # they hold tensors
        self._operation.has_ended.set()
        self._future.set_result(self._result)
        self._operation.leave()

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Waits until the operation has ended; raises its error."""
        if timeout > timedelta(0):
            if not self._operation.has_ended.wait(timeout.total_seconds()):
                raise ccl.Timeout("the operation did not finish within the timeout, and goes on")
        self._operation.has_ended.wait()
        if self._error is not None:
            self._operation.counts.errors.forget(self._error)
            raise self._error
        return True

    def synchronize(self) -> None:
        self.wait()

    def is_completed(self) -> bool:
        return self._operation.has_ended.is_set()

    def is_success(self) -> bool:
        return self._operation.has_ended.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        return self._error

    def result(self) -> list[torch.Tensor]:
        self.wait()
        return self._result

    @uninterrupted
    def get_future(self) -> Any:
        return self._future


class Together(dist._Work):  # type: ignore[name-defined]
    """Several works as one."""

    def __init__(self, works: Sequence[Work]) -> None:
        super().__init__()
        self._works = works

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Waits for all of them; raises the first error."""
        return all([work.wait(timeout) for work in self._works])

    def synchronize(self) -> None:
        self.wait()

    def is_completed(self) -> bool:
        return all(work.is_completed() for work in self._works)

    def is_success(self) -> bool:
        return all(work.is_success() for work in self._works)

    def exception(self) -> BaseException | None:
        return next(filter(None, (work.exception() for work in self._works)), None)

    def result(self) -> list[torch.Tensor]:
        return [tensor for work in self._works for tensor in work.result()]

    @uninterrupted
    def get_future(self) -> Any:
        return torch.futures.collect_all([work.get_future() for work in self._works])
