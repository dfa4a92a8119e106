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
        """Waits until it has ended. ``Timeout`` if ``timeout`` passes before."""

    def stop(self) -> None:
        """Tells it to stop serving; ``wait`` returns once it has. Does not block."""

    def close(self) -> None:
        """Stops serving, and waits until it has.

        Peers go on, and find a master that is started again.
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
    """A member of a run; it leaves when it is closed or collected.

    Every method may be called from any thread. Waits let other threads run and end on Ctrl-C.
    Buffers must not be touched while an operation runs; after an error they hold the input. After
    Ctrl-C they are in use until the verdict, which the next call with the same tag waits for.
    """

    def __new__(cls, master: str, **settings: Unpack[CommunicatorSettings]) -> Self:
        """Joins a run: blocks until admitted, at most ``connect_timeout``."""

    @property
    def peer(self) -> int:
        """This session's name in the run's events and errors."""

    @property
    def rank(self) -> int:
        """Rank in the view of the newest result."""

    @property
    def world_size(self) -> int:
        """Members of the view of the newest result."""

    @property
    def epoch(self) -> int:
        """Number of the view of the newest result: +1 at each change of the members."""

    @property
    def waits_for(self) -> str | None:
        """What this peer waits for at the moment, such as who has not come to its safe point."""

    @property
    def view(self) -> View:
        """The view of the newest result. It changes only when a call returns."""

    @property
    def pending_peers(self) -> int:
        """Newcomers that the next ``update_topology`` may admit, as far as this peer has heard."""

    @property
    def global_world_size(self) -> int:
        """Members of all groups of the run together. Of other groups it may be old."""

    @property
    def groups(self) -> int:
        """Groups that have members. Of other groups it may be old."""

    @property
    def largest_group(self) -> int:
        """Members of the largest group. Of other groups it may be old."""

    @property
    def listen_address(self) -> str:
        """The ``host:port`` that other peers reach this one at."""

    def counters(self) -> Counters:
        """What happened so far."""

    def update_topology(self) -> View:
        """A safe point: admits the newcomers that are ready. All members must come to it.

        A newcomer's first call is what the members call after the safe point that admits it.
        """

    def update_topology_async(self) -> SafePoint:
        """Comes to a safe point without waiting for the others."""

    def close(self) -> None:
        """Leaves the run; waits at most a second for the master's farewell. Open calls end."""

    def all_reduce(
        self,
        buffer: Memory,
        op: Op = "sum",
        *,
        out: Memory | None = None,
        **options: Unpack[Options],
    ) -> Outcome:
        """Reduces equally long buffers of all members, in place or into ``out``."""

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
        """Starts to reduce a list of buffers, in place, as one transaction."""

    def all_gather(self, send: Memory, out: Memory, **options: Unpack[Options]) -> Outcome:
        """Collects every member's ``send`` in ``out``, in rank order."""

    def all_gather_async(self, send: Memory, out: Memory, **options: Unpack[Options]) -> Handle:
        """Starts an all-gather."""

    def all_gather_scalars(
        self, values: Sequence[float], **options: Unpack[Options]
    ) -> list[list[float]]:
        """Collects a few numbers of every member: a list of floats for each rank.

        ``InvalidArgument`` for an integer that no float is equal to.
        """

    def reduce_scatter(
        self, send: Memory, out: Memory, op: Op = "sum", **options: Unpack[Options]
    ) -> Outcome:
        """Reduces ``send``, ``world_size`` equal shares; each member gets that of its rank."""

    def reduce_scatter_async(
        self, send: Memory, out: Memory, op: Op = "sum", **options: Unpack[Options]
    ) -> Handle:
        """Starts a reduce-scatter."""

    def broadcast(self, buffer: Memory, root: int = 0, **options: Unpack[Options]) -> Outcome:
        """Gives all members the buffer of rank ``root``."""

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
        """Makes a state equal at all members of the group, which all call it.

        Lost peers do not disturb the others. ``StateMismatch`` if the members' states do not fit.
        """

    def sync_async(
        self,
        state: SharedState,
        **options: Unpack[SyncOptions],
    ) -> SyncHandle:
        """Starts a sync. The state may be read until it ends where ``is_source`` is true."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Handle:
    """An operation under way. Dropped, it goes on; the next call under its tag waits for it."""

    def wait(self, timeout: Time | None = None) -> Outcome:
        """Waits until it has ended. After ``timeout`` raises ``Timeout``; the operation goes on."""

    def done(self) -> bool:
        """Whether it has ended, one way or another. Does not block.

        If so, the current CUDA streams wait for the results that go to devices.
        """

    def cancel(self) -> None:
        """Asks to abort it for all members; the verdict may still be success. Does not block."""

    def progress(self) -> Progress:
        """How far it is at this peer, or was when it ended. Does not block."""

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Calls ``callback()`` once it has ended, on a thread of the library, which it may block."""

    def call_when_done(self, callback: Callable[[], object]) -> None:
        """As ``add_done_callback``, for the package's own callbacks, which are short and block nowhere."""

    def __await__(self) -> Generator[Any, None, Outcome]: ...

@final
class SafePoint:
    """A safe point that this peer has come to. Dropping it withdraws unless it was released."""

    def wait(self, timeout: Time | None = None) -> View:
        """Waits until it is released. After ``timeout`` raises ``Timeout``; it goes on."""

    def done(self) -> bool:
        """Whether it has ended, one way or another. Does not block."""

    def cancel(self) -> None:
        """Asks to come back from it, which ``wait`` then tells by ``Timeout``. Does not block.

        A safe point that is withdrawn is not used up.
        """

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Calls ``callback()`` once it has ended, on a thread of the library, which it may block."""

    def __await__(self) -> Generator[Any, None, View]: ...

@final
class SharedState:
    """What all members are to hold with the same bits, and its revision.

    It is a view: memory stays where it is, is written in place by syncs and ``load``, and is looked
    up anew at each call. All members have the same names, types and shapes in the same order.
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
        """How often the state was advanced; a sync may be one ahead of the one before."""

    @revision.setter
    def revision(self, revision: int) -> None: ...
    @property
    def is_usable(self) -> bool:
        """Whether the content is whole.

        False after a sync or load that failed half-way: what is there is a mixture, and the next
        sync only receives. True again after a sync or load that succeeds, or ``begin_anew``.
        """

    def mark_mixed(self) -> None:
        """Says that the content is a mixture of two, as that of a failed write: ``is_usable`` is
        false, and the next sync only receives."""

    def begin_anew(self, revision: int = 0) -> None:
        """Says that the memory holds a whole content of this revision, whatever it was before, or
        will when it is used next: what the program has put there itself. So a run begins anew whose
        members have all lost theirs (``StateMismatch`` with the ``fault`` ``"no_source"``)."""

    @property
    def names(self) -> list[str]:
        """Names of the entries, in order."""

    def root(self) -> str:
        """The digest over all entries as they are now, in hexadecimal. Hashes everything."""

    def save(self, directory: str | os.PathLike[str], *, keep: int = 2) -> Path:
        """Saves the state with its revision; returns the file once it survives the machine."""

    def load(self, directory: str | os.PathLike[str], *, missing_ok: bool = False) -> bool:
        """Loads the newest checkpoint that is whole, with its revision.

        Where there is none at all, raises ``FileNotFoundError``, or returns false with
        ``missing_ok``. A newer one that cannot be used is a warning on the logger ``ccl``, and in
        ``skipped``.
        """

    @property
    def skipped(self) -> list[str]:
        """Newer checkpoints that the last ``load`` passed over, newest first: file, and what is wrong."""

@final
class SyncHandle:
    """A sync under way. Dropped, it goes on; whoever needs the state next waits for it."""

    def wait(self, timeout: Time | None = None) -> SyncInfo:
        """Waits until it has ended. After ``timeout`` raises ``Timeout``; the sync goes on."""

    def done(self) -> bool:
        """Whether it has ended, one way or another. Does not block."""

    def cancel(self) -> None:
        """Asks to abort it for all members; the verdict may still be success. Does not block."""

    def progress(self) -> Progress:
        """Bytes that differed and are here, and all of them; for a source, the bytes it gave.

        After the end, what it was then.
        """

    @property
    def is_source(self) -> bool | None:
        """Whether this peer gives what was elected; after the end, whether it did.

        Others may read its memory until the end. ``None`` before the election.
        """

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Calls ``callback()`` once it has ended, on a thread of the library, which it may block."""

    def __await__(self) -> Generator[Any, None, SyncInfo]: ...

@final
class SyncInfo:
    """What a sync did at this peer."""

    @property
    def revision(self) -> int:
        """The revision that all members have now."""

    @property
    def root(self) -> str:
        """The digest over all entries, equal at all members, in hexadecimal."""

    @property
    def sent_bytes(self) -> int:
        """Bytes given to other members."""

    @property
    def received_bytes(self) -> int:
        """Bytes received: blocks that differed, and digests."""

    @property
    def sources(self) -> dict[int, int]:
        """Who gave them, and how many of those that were used."""

    @property
    def op(self) -> str:
        """The sync's name in the history."""

    @property
    def attempts(self) -> int:
        """Attempts it took."""

    @property
    def members(self) -> list[int]:
        """Members that took part."""

    @property
    def view(self) -> View:
        """The view this peer was in when it was told."""

    @property
    def duration(self) -> float:
        """Seconds from call to return."""

    @property
    def hashing(self) -> float:
        """How many of them went into hashing the own state."""

@final
class Outcome:
    """A success."""

    @property
    def op(self) -> str:
        """The operation's name in the history."""

    @property
    def contributors(self) -> list[int]:
        """Whose data is in the result, in rank order."""

    @property
    def world_size(self) -> int:
        """Number of contributors."""

    @property
    def view(self) -> View:
        """The view this peer was in when it was told."""

    @property
    def attempts(self) -> int:
        """Attempts it took."""

@final
class View:
    """The members of one peer group for a while."""

    @property
    def epoch(self) -> int:
        """Its number: +1 at each change of the members."""

    @property
    def term(self) -> int:
        """Generation of the master that installed it."""

    @property
    def members(self) -> list[int]:
        """Peers in rank order."""

    @property
    def names(self) -> list[str]:
        """What they are called, in rank order."""

    @property
    def addresses(self) -> list[list[str]]:
        """Where others reach them, ``ip:port``, in rank order; each has one or more."""

    @property
    def ring_order(self) -> list[int]:
        """The ring: ranks, each followed by its next."""

@final
class TensorExtractor:
    """Torch's ``_extract_tensors``, without running Python for a list of tensors."""

    def __new__(cls, original: Callable[[Any], Any], tensor_type: type) -> Self: ...
    def __call__(self, value: Any) -> Any: ...

def call_soon(callback: Callable[[], object]) -> None:
    """Calls ``callback()`` soon, on a thread of the library, which it may block."""

def close_door() -> None:
    """Lets no thread of the library into Python from now on; waits for those inside."""

def forget_inside() -> None:
    """In a forked child, which has none of those that were inside."""

def log_level(level: int) -> None:
    """Takes log lines from ``level`` on, as ``logging`` numbers levels; from 41 on none."""

def log_lines() -> tuple[list[tuple[int, str, float, str | None, str, int]], int] | None:
    """The next lines, and how many were dropped; blocks until there are some.

    A line is level, text, time, thread, file and line. ``None`` once the log is closed and empty.
    """

def log_close() -> None:
    """Ends the log: who takes lines gets what is left, and no more."""

def run_command(program: list[str], arguments: list[str]) -> int:
    """Runs the ``ccl`` command; ``program`` starts a copy of it. Returns its exit status."""

VERSION: str

def newest_checkpoint(directory: str | os.PathLike[str]) -> StateId | None:
    """What the newest checkpoint is that is whole by name, header and length.

    Its content is not hashed. ``None`` if there is none at all.
    """

@final
class StateId:
    """A content of a shared state, as its revision and its digest name it."""

    @property
    def revision(self) -> int:
        """How often the state had been advanced."""

    @property
    def root(self) -> str:
        """The digest over all entries, in hexadecimal."""

@final
class Counters:
    """What a communicator did so far."""

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
        """Data connections of the widest link there is now."""

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to other peers."""

    @property
    def received_bytes(self) -> int:
        """Bytes received from other peers."""

@final
class Progress:
    """How far an operation is at this peer."""

    @property
    def done_bytes(self) -> int:
        """Payload bytes sent and received so far."""

    @property
    def total_bytes(self) -> int:
        """Payload bytes this peer will have sent and received at the end."""

def uninterrupted(function: _Function) -> _Function:
    """The function as one that Ctrl-C does not interrupt: it is answered after its return."""
