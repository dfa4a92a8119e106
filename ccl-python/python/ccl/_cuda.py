"""Tensors on CUDA devices, staged through host memory while an operation runs.

Inputs are copied to the host before the operation starts. Results are copied to the device after the
commit, so an error leaves tensors unchanged. Copies run on a stream of the library. It first waits for
the work queued on the caller's current stream; the current stream of a thread that waits for the
operation then waits for the copies.
"""

import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ccl._errors import InvalidArgument

#: Copies are split into pieces, so that copies of other streams can interleave.
SEGMENT_BYTES = 16 << 20
#: Most host memory pinned at a time. Beyond it, copies use unpinned memory, which is slower.
PINNED_BYTES_MAX = 2 << 30
#: Interval of polling for the end of copies. In between other threads run, and Ctrl-C ends the wait.
POLL_SECONDS_MIN = 20e-6
POLL_SECONDS_MAX = 1e-3

#: Tests replace this where there is no CUDA device.
cuda: Any = torch.cuda


class Staging:
    """Host memory that stands in for one contiguous tensor."""

    def __init__(self, tensor: torch.Tensor, is_read: bool, is_written: bool) -> None:
        self.is_inference = tensor.is_inference()
        self.is_written = is_written
        self.lane = _lane(tensor.device)
        with torch.inference_mode(self.is_inference):
            self.tensor = tensor.detach().view(-1)
        self.host = _host_memory(self.tensor, is_used=is_read or is_written)
        if is_read or is_written:
            self.lane.follow(self.tensor)
        if is_read:
            self.lane.copy(self.host, self.tensor)

    def deliver(self) -> None:
        """Starts copying the result to the tensor."""
        with torch.inference_mode(self.is_inference):
            self.lane.copy(self.tensor, self.host)


class Transfer:
    """The CUDA tensors of one operation, and their host memory."""

    def __init__(self, stagings: Sequence[Staging]) -> None:
        """Waits until the inputs have arrived in host memory."""
        self._lock = threading.Lock()
        self._written = [staging for staging in stagings if staging.is_written]
        self._delivered: list[tuple[_Lane, Any]] | None = None
        _check_overlap(self._written)
        for _lane_of_some, event in _record(stagings):
            _wait(event)

    def deliver(self) -> None:
        """Starts copying the results to the devices, unless that has already started."""
        with self._lock:
            if self._delivered is None:
                for staging in self._written:
                    staging.deliver()
                self._delivered = _record(self._written)
                self._written.clear()

    def join(self) -> None:
        """Makes the current streams wait for the results."""
        for lane, event in self._delivered or ():
            cuda.current_stream(lane.device).wait_event(event)

    def wait(self) -> None:
        """Waits until the results have arrived on the devices."""
        for _lane_of_some, event in self._delivered or ():
            _wait(event)

    def discard(self) -> None:
        """Called when the operation failed and there is no result."""
        with self._lock:
            self._written.clear()


class _Lane:
    """The stream for copies from and to one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = cuda.Stream(device)

    def follow(self, tensor: torch.Tensor) -> None:
        """Makes this stream wait for the work queued on the current stream so far."""
        self.stream.wait_stream(cuda.current_stream(self.device))
        # Even if the tensor is dropped, its memory is not reused before the copies are done.
        tensor.record_stream(self.stream)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        step = max(1, SEGMENT_BYTES // target.element_size())
        with cuda.stream(self.stream):
            for begin in range(0, target.numel(), step):
                part = slice(begin, begin + step)
                target[part].copy_(source[part], non_blocking=True)


_lanes: dict[torch.device, _Lane] = {}
_lock = threading.Lock()
_pinned_bytes = 0


def current_streams(tensors: Iterable[torch.Tensor]) -> list[Any]:
    """This thread's current streams on the tensors' devices."""
    return [cuda.current_stream(device) for device in devices(tensors)]


@contextmanager
def on_streams(streams: Iterable[Any]) -> Iterator[None]:
    """Makes these streams this thread's current ones inside the block."""
    with ExitStack() as stack:
        for stream in streams:
            stack.enter_context(cuda.stream(stream))
        yield


def synchronize(tensors: Iterable[torch.Tensor]) -> None:
    """Waits for the work queued on the current streams of the tensors' devices."""
    for device in devices(tensors):
        cuda.current_stream(device).synchronize()


def devices(tensors: Iterable[torch.Tensor]) -> set[Any]:
    """The CUDA devices that hold some of the tensors."""
    return {tensor.device for tensor in tensors if tensor.is_cuda}


def _lane(device: torch.device) -> _Lane:
    with _lock:
        if device not in _lanes:
            _lanes[device] = _Lane(device)
        return _lanes[device]


def _record(stagings: Iterable[Staging]) -> list[tuple[_Lane, Any]]:
    """An event on the stream of each of these copies."""
    events = []
    for lane in {staging.lane.device: staging.lane for staging in stagings}.values():
        event = cuda.Event()
        event.record(lane.stream)
        events.append((lane, event))
    return events


def _wait(event: Any) -> None:
    pause = POLL_SECONDS_MIN
    while not event.query():
        time.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS_MAX)


def _host_memory(tensor: torch.Tensor, is_used: bool) -> torch.Tensor:
    """Allocates pinned memory. Torch reuses dropped pinned memory once no copy uses it."""
    global _pinned_bytes
    count, dtype = tensor.numel(), tensor.dtype
    # Torch rounds it up like this.
    pinned_bytes = 1 << max(0, count * tensor.element_size() - 1).bit_length()
    with _lock:
        is_pinned = is_used and _pinned_bytes + pinned_bytes <= PINNED_BYTES_MAX
        if is_pinned:
            _pinned_bytes += pinned_bytes
    if not is_pinned:
        return torch.empty(count, dtype=dtype)
    try:
        host = _pinned(count, dtype)
    except BaseException:
        _give_back(pinned_bytes)
        raise
    weakref.finalize(host, _give_back, pinned_bytes)
    return host


def _pinned(count: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(count, dtype=dtype, pin_memory=True)


def _give_back(pinned_bytes: int) -> None:
    global _pinned_bytes
    with _lock:
        _pinned_bytes -= pinned_bytes


def _check_overlap(written: list[Staging]) -> None:
    """Refuses overlapping tensors on devices; the library itself only checks host memory."""
    ranges = []
    for staging in written:
        tensor = staging.tensor
        begin = tensor.data_ptr()
        if tensor.numel() > 0:
            ranges.append((begin, begin + tensor.numel() * tensor.element_size()))
    ranges.sort()
    for (_, end), (begin, _) in zip(ranges, ranges[1:], strict=False):
        if begin < end:
            raise InvalidArgument("tensors of the call overlap, and at least one of them is written")
