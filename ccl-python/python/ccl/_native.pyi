"""Types of the native module; use them through the package ``ccl``."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, final

from ccl.types import (
    CommunicatorSettings,
    MasterSettings,
    Memory,
    Op,
    Options,
    State,
    SyncOptions,
    Time,
)

__all__ = [
    "VERSION",
    "Communicator",
    "Connecting",
    "Counters",
    "Handle",
    "Master",
    "Outcome",
    "Progress",
    "SafePoint",
    "SharedState",
    "StateId",
    "SyncHandle",
    "SyncInfo",
    "TensorExtractor",
    "View",
    "call_soon",
    "close_door",
    "forget_inside",
    "log_close",
    "log_level",
    "log_lines",
    "newest_checkpoint",
    "run_command",
    "uninterrupted",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

@final
class Master:
    """A running master; it stops when it is closed or collected."""

    def __new__(cls, **settings: Unpack[MasterSettings]) -> Self: ...
    @property
    def address(self) -> str:
        """The ``host:port`` it listens on."""

    @property
    def ended(self) -> bool:
        """Whether it has ended, by ``close`` or by itself."""

    def wait(self, timeout: Time | None = None) -> None:
        """Waits until it has ended. Raises ``Timeout`` if ``timeout`` passes first."""

    def stop(self) -> None:
        """Tells it to stop serving; ``wait`` returns once it has. Does not block."""

    def close(self) -> None:
        """Stops serving, and waits until it has.

        Peers go on, and find a restarted master.
        """

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Communicator:
    """A peer of a run; it leaves when it is closed or collected.

    Every method may be called from any thread. Waits let other threads run and end on Ctrl-C.
    Buffers must not be touched while an operation runs; after an error they hold the input. After
    Ctrl-C the operation still uses its buffers until its verdict; the next call with the same tag
    waits for that.
    """

    def __new__(cls, master: str, **settings: Unpack[CommunicatorSettings]) -> Self:
        """Joins a run: blocks until admitted, at most ``connect_timeout``."""

    @staticmethod
    def connect_async(master: str, **settings: Unpack[CommunicatorSettings]) -> Connecting:
        """Starts to join a run, without waiting until this peer is admitted."""

    @property
    def peer(self) -> int:
        """The id of this session, as shown in events and errors."""

    @property
    def rank(self) -> int:
        """Rank in the view of the newest result."""

    @property
    def world_size(self) -> int:
        """Number of members in the view of the newest result."""

    @property
    def epoch(self) -> int:
        """Epoch of the view of the newest result; each change of the members adds 1."""

    @property
    def waits_for(self) -> str | None:
        """What this peer waits for now, such as members that have not reached its safe point."""

    @property
    def view(self) -> View:
        """The view of the newest result. It changes only when a call returns."""

    @property
    def pending_peers(self) -> int:
        """Newcomers that the next ``update_topology`` may admit, as far as this peer knows."""

    @property
    def global_world_size(self) -> int:
        """Members of all groups of the run together. Counts of other groups may be outdated."""

    @property
    def groups(self) -> int:
        """Number of groups that have members. Other groups' counts may be outdated."""

    @property
    def largest_group(self) -> int:
        """Members of the largest group. Counts of other groups may be outdated."""

    @property
    def listen_address(self) -> str:
        """The ``host:port`` at which other peers reach this one."""

    def counters(self) -> Counters:
        """Counters since the communicator was created."""

    def update_topology(self) -> View:
        """A safe point: admits newcomers that are ready. All members must call it equally often.

        A newcomer's first call is the one that the members make after the safe point that admitted
        it.
        """

    def update_topology_async(self) -> SafePoint:
        """Enters a safe point without waiting for the others."""

    def close(self) -> None:
        """Leaves the run; waits at most a second for the master's answer. Open calls end."""

    def all_reduce(
        self,
        buffer: Memory,
        op: Op = "sum",
        *,
        out: Memory | None = None,
        **options: Unpack[Options],
    ) -> Outcome:
        """Reduces a buffer of the same length from every member, in place or into ``out``."""

    def all_reduce_async(
        self,
        buffer: Memory,
        op: Op = "sum",
        *,
        out: Memory | None = None,
        **options: Unpack[Options],
    ) -> Handle:
        """Starts an all-reduce."""

    def all_reduce_many(
        self, buffers: Sequence[Memory], op: Op = "sum", **options: Unpack[Options]
    ) -> Outcome:
        """Reduces a list of buffers, in place, as one transaction."""

    def all_reduce_many_async(
        self, buffers: Sequence[Memory], op: Op = "sum", **options: Unpack[Options]
    ) -> Handle:
        """Starts ``all_reduce_many``."""

    def all_gather(self, send: Memory, out: Memory, **options: Unpack[Options]) -> Outcome:
        """Collects every member's ``send`` in ``out``, in rank order."""

    def all_gather_async(self, send: Memory, out: Memory, **options: Unpack[Options]) -> Handle:
        """Starts an all-gather."""

    def all_gather_scalars(
        self, values: Sequence[float], **options: Unpack[Options]
    ) -> list[list[float]]:
        """Collects a few numbers from every member: a list of floats for each rank.

        Raises ``InvalidArgument`` for an integer that a float cannot represent exactly.
        """

    def reduce_scatter(
        self, send: Memory, out: Memory, op: Op = "sum", **options: Unpack[Options]
    ) -> Outcome:
        """Reduces ``send``, ``world_size`` equal shares; each member gets the share of its rank."""

    def reduce_scatter_async(
        self, send: Memory, out: Memory, op: Op = "sum", **options: Unpack[Options]
    ) -> Handle:
        """Starts a reduce-scatter."""

    def broadcast(self, buffer: Memory, root: int = 0, **options: Unpack[Options]) -> Outcome:
        """Sends the buffer of rank ``root`` to all members."""

    def broadcast_async(self, buffer: Memory, root: int = 0, **options: Unpack[Options]) -> Handle:
        """Starts a broadcast."""

    def barrier(self, **options: Unpack[Options]) -> Outcome:
        """Blocks until all members have called it."""

    def barrier_async(self, **options: Unpack[Options]) -> Handle:
        """Starts a barrier."""

    def sync(
        self,
        state: SharedState,
        **options: Unpack[SyncOptions],
    ) -> SyncInfo:
        """Makes a state equal on all members of the group, which must all call it.

        Lost peers do not disturb the others. Raises ``StateMismatch`` if the states do not fit.
        """

    def sync_async(
        self,
        state: SharedState,
        **options: Unpack[SyncOptions],
    ) -> SyncHandle:
        """Starts a sync. While it runs, the state may be read only where ``is_source`` is true."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Connecting:
    """A connection attempt. Dropping it gives up, unless ``wait`` has returned the communicator."""

    def wait(self, timeout: Time | None = None) -> Communicator:
        """Waits until this peer is admitted. Raises ``Timeout`` after ``timeout``; the attempt goes on.

        Other errors are those of ``Communicator``.
        """

    @property
    def waits_for(self) -> str | None:
        """What this peer waits for at the moment, such as more peers for the first view."""

    def close(self) -> None:
        """Gives up, or closes the communicator if there is one. Waiting threads get ``Ended``."""

@final
class Handle:
    """An operation in progress. If dropped it goes on; the next call with its tag waits for it."""

    def wait(self, timeout: Time | None = None) -> Outcome:
        """Waits until it has ended. Raises ``Timeout`` after ``timeout``; the operation goes on."""

    def done(self) -> bool:
        """Whether it has ended, successfully or not. Does not block.

        If so, the current CUDA streams wait for results that are copied to devices.
        """

    def cancel(self) -> None:
        """Asks to abort it for all members. It may still succeed. Does not block."""

    def progress(self) -> Progress:
        """Its progress at this peer; after the end, its last progress. Does not block."""

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Calls ``callback()`` once it has ended, on a library thread; it may block."""

    def call_when_done(self, callback: Callable[[], object]) -> None:
        """As ``add_done_callback``, for callbacks of this package, which never block."""

    def __await__(self) -> Generator[Any, None, Outcome]: ...

@final
class SafePoint:
    """A safe point that this peer has entered. Dropping it withdraws, unless it was released."""

    def wait(self, timeout: Time | None = None) -> View:
        """Waits until it is released. Raises ``Timeout`` after ``timeout``; the safe point goes on."""

    def done(self) -> bool:
        """Whether it has ended, successfully or not. Does not block."""

    def cancel(self) -> None:
        """Asks to withdraw from it; ``wait`` then raises ``Timeout``. Does not block.

        The next call is then the same safe point again.
        """

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Calls ``callback()`` once it has ended, on a library thread; it may block."""

    def __await__(self) -> Generator[Any, None, View]: ...

@final
class SharedState:
    """What all members hold with the same bits, and its revision.

    It is a view: the memory stays where it is, syncs and ``load`` write it in place, and each call
    looks it up again. All members have the same names, types and shapes in the same order.
    Entries named in ``allow_inequality`` may differ in content.
    """

    def __new__(
        cls,
        source: State,
        *,
        revision: int = 0,
        allow_inequality: Iterable[str] | None = None,
    ) -> Self: ...
    @property
    def revision(self) -> int:
        """How often the state was advanced: at each sync at most one more than at the last."""

    @revision.setter
    def revision(self, revision: int) -> None: ...
    @property
    def is_usable(self) -> bool:
        """Whether the content is consistent.

        False after a sync or load that failed half-way and left a mixture of two contents; the next
        sync then only receives. True again after a successful sync or load, or ``begin_anew``.
        """

    def mark_mixed(self) -> None:
        """Marks the content as a mixture, for example after a failed write.

        ``is_usable`` becomes false, and the next sync only receives.
        """

    def begin_anew(self, revision: int = 0) -> None:
        """Declares that the program itself has filled the memory with a consistent content of this
        revision, or will have before the next use of the state.

        Use it to continue a run whose members have all lost their contents (``StateMismatch`` with
        the ``fault`` ``"no_source"``).
        """

    @property
    def names(self) -> list[str]:
        """Names of the entries, in order."""

    def root(self) -> str:
        """The root digest over all entries as they are now, in hexadecimal. Hashes everything."""

    def save(self, directory: str | os.PathLike[str], *, keep: int = 2) -> Path:
        """Saves the state and its revision; returns the path once the file survives a power loss."""

    def load(self, directory: str | os.PathLike[str], *, missing_ok: bool = False) -> bool:
        """Loads the newest intact checkpoint, with its revision.

        If there is no checkpoint at all, raises ``FileNotFoundError``, or returns false with
        ``missing_ok``. Newer checkpoints that cannot be used are listed in ``skipped``, and logged
        as a warning on the logger ``ccl``.
        """

    @property
    def skipped(self) -> list[str]:
        """Newer checkpoints that the last ``load`` skipped, newest first: each file, and what is wrong."""

@final
class SyncHandle:
    """A sync in progress. If dropped, it goes on; the next use of the state waits for it."""

    def wait(self, timeout: Time | None = None) -> SyncInfo:
        """Waits until it has ended. Raises ``Timeout`` after ``timeout``; the sync goes on."""

    def done(self) -> bool:
        """Whether it has ended, successfully or not. Does not block."""

    def cancel(self) -> None:
        """Asks to abort it for all members. It may still succeed. Does not block."""

    def progress(self) -> Progress:
        """Differing bytes that have arrived, and their total; for a source, the bytes it has sent.

        After the end, the last progress.
        """

    @property
    def is_source(self) -> bool | None:
        """Whether this peer is a source of the elected content; after the end, whether it was.

        Others may read its memory until the end. ``None`` before the election.
        """

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Calls ``callback()`` once it has ended, on a library thread; it may block."""

    def __await__(self) -> Generator[Any, None, SyncInfo]: ...

@final
class SyncInfo:
    """What a sync did at this peer."""

    @property
    def revision(self) -> int:
        """The revision that all members have now."""

    @property
    def root(self) -> str:
        """The root digest over all entries, equal on all members, in hexadecimal."""

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to other members."""

    @property
    def received_bytes(self) -> int:
        """Bytes received: differing blocks, and digests."""

    @property
    def sources(self) -> dict[int, int]:
        """Peers that sent blocks, and how many of their bytes were used."""

    @property
    def op(self) -> str:
        """The sync's name in the run's history."""

    @property
    def attempts(self) -> int:
        """Number of attempts."""

    @property
    def members(self) -> list[int]:
        """Members that took part."""

    @property
    def view(self) -> View:
        """The view this peer was in when it learned the outcome."""

    @property
    def duration(self) -> float:
        """Seconds from call to return."""

    @property
    def hashing(self) -> float:
        """Seconds of ``duration`` that were spent hashing this peer's state."""

@final
class Outcome:
    """The result of a successful operation."""

    @property
    def op(self) -> str:
        """The operation's name in the run's history."""

    @property
    def contributors(self) -> list[int]:
        """Peers whose data is in the result, in rank order."""

    @property
    def weights(self) -> list[int]:
        """By how much each contributor counts, in the same order; empty without weights."""

    @property
    def world_size(self) -> int:
        """Number of contributors."""

    @property
    def view(self) -> View:
        """The view this peer was in when it learned the outcome."""

    @property
    def attempts(self) -> int:
        """Number of attempts."""

@final
class View:
    """The members of a peer group between two changes."""

    @property
    def epoch(self) -> int:
        """The number of the view; each change of the members adds 1."""

    @property
    def term(self) -> int:
        """Term of the master that installed it; each start of a master adds 1."""

    @property
    def members(self) -> list[int]:
        """Peers in rank order."""

    @property
    def names(self) -> list[str]:
        """Names of the members, in rank order."""

    @property
    def addresses(self) -> list[list[str]]:
        """Their ``ip:port`` addresses, in rank order; each has one or more."""

    @property
    def ring_order(self) -> list[int]:
        """The ring: ranks, each followed by its next."""

@final
class TensorExtractor:
    """Torch's ``_extract_tensors``, without running Python for a list of tensors."""

    def __new__(cls, original: Callable[[Any], Any], tensor_type: type) -> Self: ...
    def __call__(self, value: Any) -> Any: ...

def call_soon(callback: Callable[[], object]) -> None:
    """Calls ``callback()`` soon, on a thread of the library; it may block."""

def close_door() -> None:
    """Keeps the library's threads out of Python from now on; waits for the threads inside."""

def forget_inside() -> None:
    """Resets the count of threads inside, in a forked child."""

def log_level(level: int) -> None:
    """Queues log lines of at least ``level``, numbered as in ``logging``; above 40, none."""

def log_lines() -> tuple[list[tuple[int, str, float, str | None, str, int]], int] | None:
    """The next lines, and how many were dropped; blocks until there are some.

    A line is level, text, time, thread, file and line. ``None`` once the log is closed and empty.
    """

def log_close() -> None:
    """Closes the log: readers get the remaining lines, then ``None``."""

def run_command(program: list[str], arguments: list[str]) -> int:
    """Runs the ``ccl`` command; ``program`` starts a copy of it. Returns its exit status."""

VERSION: str

def newest_checkpoint(directory: str | os.PathLike[str]) -> StateId | None:
    """Describes the newest checkpoint whose name, header and length are valid.

    Its content is not hashed. ``None`` if there are no checkpoints.
    """

@final
class StateId:
    """Identifies a content of a shared state by revision and digest."""

    @property
    def revision(self) -> int:
        """The revision: how often the state had been advanced."""

    @property
    def root(self) -> str:
        """The digest over all entries, in hexadecimal."""

@final
class Counters:
    """Counters of a communicator since it was created."""

    @property
    def commits(self) -> int:
        """Operations that committed."""

    @property
    def aborts(self) -> int:
        """Operations that were aborted."""

    @property
    def repairs(self) -> int:
        """Connections that broke and were repaired."""

    @property
    def lanes(self) -> int:
        """Data connections of the current link with the most."""

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to other peers."""

    @property
    def received_bytes(self) -> int:
        """Bytes received from other peers."""

@final
class Progress:
    """Progress of an operation at this peer."""

    @property
    def done_bytes(self) -> int:
        """Payload bytes sent and received so far."""

    @property
    def total_bytes(self) -> int:
        """Payload bytes sent and received at the end."""

def uninterrupted(function: _Function) -> _Function:
    """Wraps a function so that Ctrl-C takes effect only after it returns."""
