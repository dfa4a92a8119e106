"""Futures whose continuations may wait for other operations."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ccl._native import TensorExtractor, call_soon
from ccl.torch._order import Counts, Strand


class Future(torch.futures.Future[Any]):
    """A future whose continuations run as strands on threads of the library, and may block them.

    Torch would run them on the thread that completes the future, and so hold up other operations. As
    with torch's futures, a continuation of a completed future runs at once, on the calling thread.
    """

    def __init__(self, devices: Iterable[torch.device], counts: Counts) -> None:
        self._devices: list[Any] = list(devices)
        super().__init__(devices=self._devices)
        self._counts = counts
        self._lock = threading.Lock()
        self._continuations: list[tuple[Strand, Callable[[], None]]] | None = []

    def then(self, callback: Callable[[Any], Any]) -> "Future":
        following = Future(self._devices, self._counts)
        self._follow(lambda: following._take(callback, self))
        return following

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        self._follow(lambda: callback(self))

    def set_result(self, result: Any) -> None:
        super().set_result(result)
        with self._lock:
            continuations, self._continuations = self._continuations or [], None
        if continuations:
            call_soon(lambda: _run_all(continuations))

    def _follow(self, run: Callable[[], None]) -> None:
        strand = Strand(self._counts)
        with self._lock:
            if self._continuations is not None:
                self._continuations.append((strand, run))
                return
        with strand.running():
            run()

    def _take(self, callback: Callable[[Any], Any], before: "Future") -> None:
        """Completes the future with the callback's result."""
        try:
            result = callback(before)
        except Exception as error:
            self.set_exception(error)
        else:
            self.set_result(result)


def _run_all(continuations: list[tuple[Strand, Callable[[], None]]]) -> None:
    for strand, run in continuations:
        with strand.running():
            run()


def _install() -> None:
    """Makes Ctrl-C during DDP's wait for a future a ``KeyboardInterrupt``, as with torch's own futures."""
    from torch import _jit_internal

    original = getattr(_jit_internal, "_extract_tensors", None)
    if original is not None and not isinstance(original, TensorExtractor):
        _jit_internal._extract_tensors = TensorExtractor(original, torch.Tensor)


_install()
