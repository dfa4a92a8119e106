"""Futures whose continuations may wait for other operations."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ccl._native import TensorExtractor, call_soon
from ccl.torch._order import Counts, Strand


class Future(torch.futures.Future[Any]):
    """Continuations run on threads of the library's that they may block, each as a strand.

    Torch would call them on the thread that completes the future, which others wait for. As with
    torch's, a continuation of a future that is complete runs at once, on the thread that asks for it.
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
        """Completes it with what the callback gives."""
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
    """Lets a Ctrl-C during DDP's wait for a future be a ``KeyboardInterrupt``, as it is with torch's own."""
    from torch import _jit_internal

    original = getattr(_jit_internal, "_extract_tensors", None)
    if original is not None and not isinstance(original, TensorExtractor):
        _jit_internal._extract_tensors = TensorExtractor(original, torch.Tensor)


_install()
