"""Argument types, for type checkers and for wrappers of the library."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "CommunicatorSettings",
    "MasterSettings",
    "Memory",
    "Op",
    "Options",
    "State",
    "SyncOptions",
    "SyncStrategy",
    "Time",
]


class _DLPack(Protocol):
    """Anything with DLPack, including torch tensors."""

    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


#: NumPy arrays, torch tensors (CUDA's too), anything on the CPU with the buffer protocol or DLPack.
Memory: TypeAlias = "Buffer | _DLPack"
#: Seconds, or a timedelta.
Time: TypeAlias = float | timedelta
#: ``avg`` divides by the number of contributors; integers truncate toward zero.
Op: TypeAlias = Literal["sum", "avg", "prod", "min", "max"]

#: Whether a member's content takes part in the election, must win it, or does not take part.
SyncStrategy: TypeAlias = Literal["enforce_popular", "send_only", "receive_only"]
#: What a shared state may consist of: memory and numbers by name, a ``torch.nn.Module``, a
#: ``torch.optim.Optimizer``, or a list or dict of these.
State: TypeAlias = "Mapping[str, Any] | Sequence[Any] | Any"


class Options(TypedDict, total=False):
    """Options of one call."""

    #: Stream of operations; those of one tag run one after the other. Default 0.
    tag: int
    #: When to cancel it for all members. ``None``: after the communicator's ``operation_timeout``.
    deadline: Time | None
    #: Most attempts, including the first: retries run with the survivors of a lost peer. Default 1.
    attempts: int
    #: Default ``auto``, which is the same on all members.
    algorithm: Literal["auto", "one_shot", "two_shot", "ring", "direct"]
    #: What contributions are rounded to, and how they travel: for ``sum`` and ``avg`` of
    #: floating-point numbers. The same on all members; default ``None``.
    encoding: Literal["f32", "bf16", "f16", "int8", "e3m0", "int4", "int2"] | None
    #: Rounds to the encoding up or down at random, with random numbers from this seed: another one
    #: for each member and call. ``None``: to the nearer code.
    seed: int | None
    #: By how much this peer's contribution counts, from 1 to 16,777,216; 0: it contributes nothing.
    #: With weights on one member they are needed on all. ``None``: no weights.
    weight: int | None
    #: The caller's name for a collective built on this one, such as ``reduce to rank 2``. The same
    #: on all members, at most 128 bytes; default none.
    caller: str


class SyncOptions(TypedDict, total=False):
    """Options of one sync of shared state."""

    #: Default ``enforce_popular``.
    strategy: SyncStrategy
    #: A vote to go on from the best content there is. It counts if no member has the content sealed
    #: last or its successor, or if fewer members have those than are further ahead. All members
    #: must vote for it. Default false.
    restore: bool
    #: When to cancel it for all members. ``None``: after the communicator's ``operation_timeout``.
    deadline: Time | None
    #: Names of the entries whose memory may have changed since the last sync of this state: only
    #: these, and numbers, are hashed. A change to any other entry goes unnoticed until a sync
    #: without this hint. ``None``: all.
    touched: Iterable[str] | None
    #: Hashing threads. ``None``: one per core, at most 8.
    hash_threads: int | None


class CommunicatorSettings(TypedDict, total=False):
    """Settings of a peer; docs/configuration.md has the defaults."""

    run: str
    group: int
    unit: int | None
    unit_size: int | None
    #: The fixed members of a closed group, and this peer's index among them.
    members: Sequence[str] | None
    rank: int | None
    listen: str | None
    advertise: str | None
    lanes: int
    min_world_size: int
    name: str | None
    initial_world_size: int | None
    connect_timeout: Time
    operation_timeout: Time | None
    checksum: bool
    scratch_bytes: int
    io_threads: int | None
    congestion_control: str | None
    pacing_bytes_per_second: int | None
    state_bytes_per_second: int | None


class MasterSettings(TypedDict, total=False):
    """Settings of a master; docs/configuration.md has the defaults."""

    listen: str
    run: str
    journal: str | os.PathLike[str] | None
    trust_journal: bool
    fsync: bool
    new_run: bool
    force_rebuild: bool
    members_gone: bool
    link_round_trip: Time | None
    link_bytes_per_second: int | None
    reserve_bytes: int
    heartbeat_interval: Time
    peer_timeout: Time
    reattach_grace: Time
    blame_window: Time
    link_timeout: Time
    rebuild_window: Time
    detach_timeout: Time
    verdict_timeout: Time
    post_timeout: Time | None
