"""The order in which concurrent operations of a group run.

Operations on one *lane*, a tag of the communicator, run one after another, and so do operations on
overlapping memory. Posting never blocks: an operation starts when those before it have ended.

All ranks must run an operation on the same lane. A program posts in the same order on all ranks, so its
operations take the lanes in turn. Continuations of futures (``then``) may run in a different order on
each rank, so each continuation is a *strand*: it is identified by its place in the order in which the
program called ``then``, and has lanes of its own.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

import ccl
from ccl._native import uninterrupted
from ccl.torch._errors import Errors

#: Lanes that the program's operations take in turn.
STREAMS = 8
#: Strands of a program that may run operations at the same time.
SLOTS = 8
#: How deep continuations may be nested.
DEPTH_MAX = 3
#: Lanes of a group: the program's, its own strands', and those of other groups' strands.
LANES = 64
assert STREAMS + 2 * SLOTS * DEPTH_MAX <= LANES

#: One lock for all groups, since groups may share memory.
_lock = threading.Lock()
#: Operations that have a place in the order and have not ended.
_active: "dict[Operation, None]" = {}
#: Operations posted by strands whose turn has not come.
_held: "list[Operation]" = []
#: Of this thread: the strand it runs, and a queue of operations to start.
_here = threading.local()


class Counts:
    """Counts the operations and continuations of a group's program."""

    def __init__(self) -> None:
        self.errors = Errors()
        self.restart()

    def restart(self) -> None:
        """Restarts all counts, as newcomers start them. No operation is in progress."""
        self.operations = 0
        self.strands = 0
        self.last_strands: list[Strand | None] = [None] * SLOTS
        self.last_operations: dict[int, Operation] = {}

    def wait_for_end(self, timeout_seconds: float | None = None) -> bool:
        """Waits until all posted operations have ended. Returns whether they did in time."""
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with _lock:
            under_way = [operation for operation in [*_active, *_held] if operation.counts is self]
        for operation in under_way:
            left = None if end is None else max(end - time.monotonic(), 0)
            if not operation.has_ended.wait(left):
                return False
        return True


class Strand:
    """A continuation: a part of the program with an order of its own."""

    def __init__(self, counts: Counts) -> None:
        """Creates the next child of the strand that runs on this thread, for a future of this group."""
        self._counts = counts
        self._parent = _current()
        self._last: Strand | None = None
        #: Number of unfinished strands among this one and its children.
        self._open = 1
        with _lock:
            if self._parent is None:
                self.depth = 1
                self.slot = counts.strands % SLOTS
                counts.strands += 1
                self._before = counts.last_strands[self.slot]
                counts.last_strands[self.slot] = self
            else:
                # It shares its parent's slot, after the parent's other children.
                self.depth = self._parent.depth + 1
                self.slot = self._parent.slot
                self._before, self._parent._last = self._parent._last, self
                self._parent._open += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Assigns what this thread posts in the block to the strand, and ends the strand afterwards."""
        outer = _current()
        _here.strand = self
        try:
            yield
        finally:
            _here.strand = outer
            self._end()

    def is_over(self) -> bool:
        return self._open == 0

    def has_turn(self) -> bool:
        """Whether all earlier strands on its lanes are over."""
        strand: Strand | None = self
        while strand is not None:
            if strand._before is not None and not strand._before.is_over():
                return False
            strand = strand._parent
        return True

    def lane(self, counts: Counts) -> int:
        """The lane on which it posts to this group."""
        if self.depth > DEPTH_MAX:
            raise ccl.InvalidUsage(
                f"a collective in a continuation (`then`) nested {self.depth} deep; at most {DEPTH_MAX} are "
                "possible: post it in an outer one"
            )
        is_own, strand = True, self._parent
        while is_own and strand is not None:
            is_own, strand = strand._counts is counts, strand._parent
        is_own = is_own and self._counts is counts
        place = (self.depth - 1) * SLOTS + self.slot
        return STREAMS + place + (0 if is_own else SLOTS * DEPTH_MAX)

    def _end(self) -> None:
        strand: Strand | None = self
        with _lock:
            while strand is not None:
                strand._open -= 1
                if strand._open > 0:
                    break
                strand._before = strand._last = None
                strand = strand._parent
            ready = _take_held()
        _begin_all(ready)


class Spans:
    """The memory that an operation uses, as ranges of addresses."""

    def __init__(self, reads: Iterable[torch.Tensor], writes: Iterable[torch.Tensor]) -> None:
        self._written = _union(_span(tensor) for tensor in writes)
        self._used = _union([*self._written, *(_span(tensor) for tensor in reads)])
        self._begin = self._used[0][0] if self._used else 0
        self._end = self._used[-1][1] if self._used else 0

    def conflicts(self, other: "Spans") -> bool:
        """Whether one of the two writes what the other uses."""
        if self._begin >= other._end or other._begin >= self._end:
            return False
        return _meet(self._written, other._used) or _meet(self._used, other._written)

    def overwrites(self, other: "Spans") -> bool:
        """Whether this one writes, in one range, whatever the other uses."""
        return any(begin <= other._begin and other._end <= end for begin, end in self._written)


class Operation:
    """An operation's place in the order, from its post to its end."""

    def __init__(self, counts: Counts, spans: Spans, begin: Callable[[], None]) -> None:
        self.counts = counts
        self.has_ended = threading.Event()
        #: The lane it runs on.
        self.lane = 0
        #: Whether it starts on another thread after `post` has returned. Then `begin` must not raise.
        self.is_deferred = False
        self._spans = spans
        self._begin = begin
        self._strand = _current()
        self._followers: list[Operation] = []
        self._missing = 0

    @uninterrupted  # Half posted, it would block all later operations forever.
    def post(self) -> None:
        """Starts the operation now, or when all earlier ones that it must follow have ended."""
        with _lock:
            if self._strand is None:
                self.lane = self.counts.operations % STREAMS
                self.counts.operations += 1
            else:
                self.lane = self._strand.lane(self.counts)
            if self._strand is not None and not self._strand.has_turn():
                self.is_deferred = True
                _held.append(self)
                return
            self.take_place()
            self.is_deferred = not self.may_begin()
        if not self.is_deferred:
            self._begin()

    def may_begin(self) -> bool:
        return self._missing == 0

    def has_turn(self) -> bool:
        return self._strand is None or self._strand.has_turn()

    def take_place(self) -> None:
        """Puts it behind the operations that it must follow. The caller holds the lock."""
        if (before := self.counts.last_operations.get(self.lane)) is not None:
            self._follow(before)
        for other in reversed(_active):
            if other is not before and self._spans.conflicts(other._spans):
                self._follow(other)
                if other._spans.overwrites(self._spans):
                    break  # It already follows everything that this one would have to.
        self.counts.last_operations[self.lane] = self
        _active[self] = None

    def _follow(self, other: "Operation") -> None:
        other._followers.append(self)
        self._missing += 1

    def leave(self) -> None:
        """Ends the operation and starts those that waited for it, on this thread."""
        with _lock:
            del _active[self]
            if self.counts.last_operations.get(self.lane) is self:
                del self.counts.last_operations[self.lane]
            for follower in self._followers:
                follower._missing -= 1
            ready = [follower for follower in self._followers if follower.may_begin()]
            self._followers.clear()
        _begin_all(ready)


def _take_held() -> list[Operation]:
    """Places operations whose turn has come; returns those that may start. The caller holds the lock."""
    having_turn = [operation for operation in _held if operation.has_turn()]
    for operation in having_turn:
        _held.remove(operation)
        operation.take_place()
    return [operation for operation in having_turn if operation.may_begin()]


def _begin_all(ready: list[Operation]) -> None:
    """Starts operations from a queue: one that ends at once may release others, without recursion."""
    if (queue := getattr(_here, "queue", None)) is not None:
        queue.extend(ready)
        return
    queue = _here.queue = deque(ready)
    try:
        while queue:
            queue.popleft()._begin()
    finally:
        _here.queue = None


def _current() -> Strand | None:
    return getattr(_here, "strand", None)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return (0, 0)
    begin = tensor.data_ptr()
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (begin, begin + (last + 1) * tensor.element_size())


def _union(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ranges, sorted, and merged where they touch."""
    apart: list[tuple[int, int]] = []
    for begin, end in sorted(span for span in spans if span[0] < span[1]):
        if apart and begin <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((begin, end))
    return apart


def _meet(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> bool:
    ours_at = theirs_at = 0
    while ours_at < len(ours) and theirs_at < len(theirs):
        (begin, end), (other_begin, other_end) = ours[ours_at], theirs[theirs_at]
        if begin < other_end and other_begin < end:
            return True
        if end <= other_begin:
            ours_at += 1
        else:
            theirs_at += 1
    return False


def _forget() -> None:
    """Resets everything in a forked child, which has neither the operations nor their threads."""
    global _lock
    _lock = threading.Lock()
    _active.clear()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
