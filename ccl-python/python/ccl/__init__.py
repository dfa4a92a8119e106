"""Fault-tolerant collective communication for training over links that fail.

A master decides who is in the run; peers exchange data directly. Peers may join, leave or die at
any moment, and every operation ends the same way on all survivors. See ``docs/python.md``.
"""

from ccl import _exit as _exit
from ccl._errors import (
    Cancelled,
    DeadlinePassed,
    Ended,
    Error,
    Evicted,
    Forked,
    InvalidArgument,
    InvalidUsage,
    MasterUnreachable,
    NotAdmitted,
    OsError,
    PeerLost,
    Refused,
    Retryable,
    RevisionAhead,
    SessionOver,
    StateMismatch,
    Timeout,
    TooFewPeers,
    Unknown,
    WorldChanged,
)
from ccl._log import set_log_level
from ccl._native import (
    VERSION as __version__,
)
from ccl._native import (
    Communicator,
    Counters,
    Handle,
    Master,
    Outcome,
    Progress,
    SafePoint,
    SharedState,
    StateId,
    SyncHandle,
    SyncInfo,
    View,
    newest_checkpoint,
)

__all__ = [
    "__version__",
    "Cancelled",
    "Communicator",
    "Counters",
    "DeadlinePassed",
    "Ended",
    "Error",
    "Evicted",
    "Forked",
    "Handle",
    "InvalidArgument",
    "InvalidUsage",
    "Master",
    "MasterUnreachable",
    "NotAdmitted",
    "OsError",
    "Outcome",
    "PeerLost",
    "Progress",
    "Refused",
    "Retryable",
    "RevisionAhead",
    "SafePoint",
    "SessionOver",
    "SharedState",
    "StateId",
    "StateMismatch",
    "SyncHandle",
    "SyncInfo",
    "Timeout",
    "TooFewPeers",
    "Unknown",
    "View",
    "WorldChanged",
    "newest_checkpoint",
    "set_log_level",
]
