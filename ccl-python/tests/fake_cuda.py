"""A fake device: tensors that claim to be on CUDA, and streams that do nothing until they are waited for.

Code that forgets to wait reads old contents.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ccl._cuda
import torch

DEVICE = torch.device("cuda", 0)
_lock = threading.RLock()


class Stream:
    """Queued work, done in order when it is waited for."""

    def __init__(self, _device: Any = None) -> None:
        self.work: list[Callable[[], object]] = []
        self.done = 0

    def run_to(self, end: int) -> None:
        with _lock:
            while self.done < end:
                work, self.work[self.done] = self.work[self.done], _nothing
                work()
                self.done += 1

    def wait_event(self, event: "Event") -> None:
        self.work.append(event.run)

    def wait_stream(self, stream: "Stream") -> None:
        event = Event()
        event.record(stream)
        self.wait_event(event)

    def synchronize(self) -> None:
        self.run_to(len(self.work))


def _nothing() -> None:
    pass


class Event:
    """A position in a stream."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.end = 0

    def record(self, stream: Stream) -> None:
        self.stream, self.end = stream, len(stream.work)

    def run(self) -> None:
        if self.stream is not None:
            self.stream.run_to(self.end)

    def query(self) -> bool:
        """Each query does one piece of work."""
        with _lock:
            if self.stream is None or self.stream.done >= self.end:
                return True
            self.stream.run_to(self.stream.done + 1)
            return False


class Cuda:
    """The parts of `torch.cuda` that `ccl._cuda` uses."""

    def __init__(self) -> None:
        self.Stream = Stream
        self.Event = Event
        #: The user's stream, on the main thread.
        self.user = Stream()
        self.default = Stream()
        self._current = threading.local()

    def current_stream(self, _device: Any = None) -> Stream:
        is_main = threading.current_thread() is threading.main_thread()
        beside = self.user if is_main else self.default
        return getattr(self._current, "stream", beside)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = self.current_stream()
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = before


cuda = Cuda()
#: If set, raised by all copies to the device.
broken: list[BaseException] = []


class Tensor(torch.Tensor):
    """Host memory that claims to be on a device. Copies from and to it are queued on a stream."""

    is_cpu = property(lambda _self: False)
    is_cuda = property(lambda _self: True)
    device = property(lambda _self: DEVICE)

    def record_stream(self, stream: Stream) -> None:
        assert stream is not cuda.user

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        if function is torch.Tensor.copy_:
            target, source = (tensor.as_subclass(torch.Tensor) for tensor in arguments[:2])
            if isinstance(arguments[0], cls) and broken:
                raise broken[0]
            cuda.current_stream().work.append(lambda: target.copy_(source))
            return arguments[0]
        return super().__torch_function__(function, types, arguments, keywords or {})


def on_device(tensor: torch.Tensor) -> Any:
    return tensor.as_subclass(Tensor)


def launch(kernel: Callable[[torch.Tensor], object], tensor: Any) -> None:
    """Queues work of the user on a tensor."""
    plain = tensor.as_subclass(torch.Tensor)
    cuda.user.work.append(lambda: kernel(plain))


def read(tensor: Any) -> list[Any]:
    """The content of a tensor as seen by the user's stream."""
    cuda.user.synchronize()
    return list(tensor.as_subclass(torch.Tensor).tolist())


def look(tensor: Any) -> list[Any]:
    """The tensor's current content."""
    return list(tensor.as_subclass(torch.Tensor).tolist())


def install() -> None:
    ccl._cuda.cuda = cuda
    ccl._cuda._pinned = lambda count, dtype: torch.empty(count, dtype=dtype)
    # This torch has no CUDA: its futures would refuse the device.
    ccl._cuda.future = lambda tensors: torch.futures.Future()
