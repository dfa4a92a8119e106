"""The exceptions, one class per remedy.

The classes mirror ``ccl_core::Error``. The native module creates the instances.
"""

from typing import Any


class Error(RuntimeError):
    """A call failed; the class says what to do about it.

    Input buffers of collectives are intact after every error; after a sync, see its state's
    ``is_usable``. Attributes that do not apply to the class are ``None``.
    """

    #: The peer that the error is about.
    peer: int | None
    #: Epoch of the view in which it happened; each change of the members adds 1.
    epoch: int | None
    #: The reason, as text.
    reason: str | None
    #: Peers that had not called the operation, or not finished it, at its deadline; at most eight.
    late: list[int] | None
    #: The operation that ended: its number and its tag.
    op: str | None
    #: Why the states do not fit together, as a keyword (``StateMismatch``).
    fault: str | None
    #: Current number of members.
    world_size: int | None
    #: Number of members needed.
    min_world_size: int | None
    #: The address that was dialled.
    address: str | None

    def __init__(
        self,
        message: str,
        *,
        peer: int | None = None,
        epoch: int | None = None,
        reason: str | None = None,
        late: list[int] | None = None,
        op: str | None = None,
        fault: str | None = None,
        world_size: int | None = None,
        min_world_size: int | None = None,
        address: str | None = None,
    ) -> None:
        super().__init__(message)
        self.peer = peer
        self.epoch = epoch
        self.reason = reason
        self.late = late
        self.op = op
        self.fault = fault
        self.world_size = world_size
        self.min_world_size = min_world_size
        self.address = address


class Retryable(Error):
    """The same call may succeed in this session."""


class PeerLost(Retryable):
    """A member was lost, or left, during the operation, which was aborted for all members.

    Call it again: it runs with the survivors.
    """


class TooFewPeers(Retryable):
    """Fewer members than ``min_world_size``. Call ``update_topology`` until more peers join."""


class WorldChanged(Retryable):
    """The buffers were made for another world size. Call again with buffers for the new one."""


class SessionOver(Error):
    """The session has ended: create a new communicator to rejoin as a newcomer."""


class Evicted(SessionOver):
    """The master evicted this peer, ``peer``, from the view ``epoch``; ``reason`` says why."""


class RevisionAhead(Evicted):
    """This peer was evicted because its shared state is more than one step ahead of the run.

    The state comes from another run, or from a later point of this one. A peer that rejoins with
    the same state is evicted again: start without it, or load the run's own checkpoint.
    """


class Refused(SessionOver):
    """The master refused this peer."""


class Unknown(SessionOver):
    """Whether the operation succeeded cannot be known."""


class Ended(SessionOver):
    """The communicator was closed, or its session had ended before."""


class Forked(SessionOver):
    """The communicator belongs to the parent process. Create a new one after the fork."""


class Cancelled(Error):
    """A member cancelled the operation, its deadline passed, or the members' calls differ.

    The operation was aborted for all members and is not retried; ``peer`` asked for the abort.
    """


class DeadlinePassed(Cancelled, TimeoutError):
    """The deadline of a member, ``peer``, passed. The operation was aborted for all members.

    ``late`` lists the peers that had not called it or, if all had, not finished it.
    """


class StateMismatch(Error):
    """A shared state cannot be synchronised: entries, strategies or revisions do not fit together.

    No data was moved, and all members get this error. ``peer`` is the member that does not fit, if it
    is a single one. ``fault`` is one of:

    - ``"keys"``, ``"strategies"``: the members' calls differ.
    - ``"sender_lost"``: the content of a ``send_only`` member was not elected.
    - ``"revision_ahead"``: too many members are too far ahead of the run.
    - ``"revision_lost"``: no member has the content sealed last, or one that follows it.
    - ``"no_source"``: no member has a consistent content.

    For the last three, all members must finally sync with ``restore``.
    """


class MasterUnreachable(Error, ConnectionError):
    """No master could be reached within ``connect_timeout``."""


class NotAdmitted(Error):
    """The master knows this peer, but it was not admitted within ``connect_timeout``."""


class Timeout(Error, TimeoutError):
    """The wait ended before the operation did. The operation goes on."""


class InvalidArgument(Error, ValueError):
    """An argument is out of range. Nothing was started."""


class InvalidUsage(Error):
    """The call does not fit the state, such as a busy tag. Nothing was started."""


class OsError(Error, OSError):
    """A system call failed; ``errno`` is its error number."""

    def __reduce__(self) -> tuple[Any, ...]:
        # `OSError` stores the number in its own field, and pickles it only if it has two arguments.
        return type(self), self.args, {**self.__dict__, "errno": self.errno}


for _class in [value for value in globals().values() if isinstance(value, type)]:
    if issubclass(_class, Error):
        # Tracebacks should show the public name.
        _class.__module__ = "ccl"
