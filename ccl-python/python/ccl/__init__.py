"""Fault-tolerant collective communication for training over links that fail.

A master decides who is in the run; peers move the bytes between themselves. Peers may join, leave or
die at any moment, and every operation ends the same way on all survivors. See ``docs/python.md``.
"""

from ccl._errors import (
    Cancelled,
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
    SessionOver,
    Timeout,
    TooFewPeers,
    Unknown,
    WorldChanged,
)
from ccl._native import (
    Communicator,
    Counters,
    Handle,
    Master,
    Outcome,
    Progress,
    View,
)

__all__ = [
    "Cancelled",
    "Communicator",
    "Counters",
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
    "SessionOver",
    "Timeout",
    "TooFewPeers",
    "Unknown",
    "View",
    "WorldChanged",
]
