"""Groups whose members change in place, for torch's fault-tolerance API.

Each set of members is a closed peer group, numbered by torch's uuid and the handles. An operation needs all
members; if one is lost it fails, and the program calls `reconfigure` with new members.
"""

import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import ccl
from ccl._native import call_soon
from ccl.torch._calls import Call
from ccl.torch._future import Future
from ccl.torch._group import Group
from ccl.torch._order import Counts
from ccl.torch._work import Tensors, Work

#: Past attempts that a group remembers, to refuse their uuids; the oldest is forgotten first.
USED_MAX = 65_536
#: Longest host name in the name of a peer, which is limited to 64 bytes.
HOST_CHARACTERS_MAX = 40
#: Shortest time left of an attempt: past its deadline, its next wait fails as a timeout.
LAST_SECONDS = 0.001

#: Starts connecting to these members, with this timeout.
Connect = Callable[["Members", timedelta], ccl.Connecting]


class Reconfigurable(Group):
    """A group whose members are set by each `reconfigure`; at first it has none."""

    def __init__(self, connect: Connect, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(None, rank, size, {}, 0, timeout)
        self.connect = connect
        self._handle = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._process = os.getpid()
        self._lock = threading.Lock()
        #: The newest attempt; `None` after an abort.
        self._attempt: Reconfiguration | None = None
        self._used: dict[int, None] = {}
        self._abort_hooks: dict[int, Callable[[], None]] = {}

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    # Torch's C++ code calls these by name.
    getRank = rank
    getSize = size

    # Torch looks for this API on the backend of a device.

    def get_backend(self, device: torch.device) -> Any:
        return self

    supports_abort_hooks = True
    supports_reconfigure = True

    def get_reconfigure_handle(self) -> str:
        return self._handle

    def reconfigure(self, opts: Any) -> "Reconfiguration":
        """Leaves the current members and connects to the new ones: to all within the timeout, or none."""
        if os.getpid() != self._process:
            raise ccl.Forked("the group belongs to the parent process; create a new one after fork")
        members = self._members(opts)
        timeout = self._timeout if opts.timeout is None else opts.timeout
        if timeout <= timedelta(0):
            raise ccl.InvalidArgument(f"reconfigure: the timeout must be positive, but is {timeout}")
        with self._lock:
            if self.is_over:
                raise ccl.InvalidUsage("the group has been destroyed: create a new one")
            if members.group in self._used:
                raise ccl.InvalidUsage(
                    f"uuid {members.uuid} was already used with the same handles: each attempt to reconfigure needs a "
                    "new one"
                )
            self._used[members.group] = None
            if len(self._used) > USED_MAX:
                del self._used[next(iter(self._used))]
            before, self._attempt = self._attempt, Reconfiguration(self, members, timeout)
            self._attempt.begin(before, self._forget())
            return self._attempt

    def _members(self, opts: Any) -> "Members":
        handles = opts.handles if isinstance(opts.handles, list) else sorted(opts.handles)
        if self._handle not in handles:
            raise ccl.InvalidArgument(
                f"reconfigure: this group's handle, {self._handle}, is not among the {len(handles)} given; "
                "a process that is not to be a member must not call reconfigure"
            )
        if len(set(handles)) != len(handles):
            raise ccl.InvalidArgument("reconfigure: duplicate handle; each rank has its own")
        return Members(opts.uuid, handles, handles.index(self._handle))

    def install(
        self, attempt: "Reconfiguration", communicator: ccl.Communicator, ranks: dict[int, int]
    ) -> None:
        """Installs the new members, which are all connected. Operations run among them from now on."""
        with self._lock:
            if self._attempt is not attempt:
                raise _given_up()
            self._communicator, self._ranks = communicator, ranks
            self._rank, self._size = ranks[communicator.peer], len(ranks)
            self._counts = Counts()
            attempt.is_formed = True

    def _forget(self) -> Counts:
        """Drops kept errors, which the caller knows. Returns the counts of unfinished operations."""
        self._together = None
        self._counts.errors.close()
        return self._counts

    def abort(self) -> None:
        """Ends operations in progress with an error and leaves the members, until `reconfigure`."""
        try:
            for hook in list(self._abort_hooks.values()):
                hook()
        finally:
            self._revoke()

    def _revoke(self) -> None:
        with self._lock:
            attempt, self._attempt = self._attempt, None
            self._forget()
        if attempt is not None:
            attempt.cancel()

    def shutdown(self) -> None:
        self.is_over = True
        self._revoke()

    def register_abort_hook(self, hook_id: int, hook: Callable[[], None]) -> None:
        """Calls `hook` at the start of each `abort`."""
        self._abort_hooks[hook_id] = hook

    def unregister_abort_hook(self, hook_id: int) -> None:
        """Removes the hook with this id; does nothing if there is none."""
        self._abort_hooks.pop(hook_id, None)

    def monitored_barrier(
        self, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> None:
        """A barrier whose error names all ranks that do not reach it in time."""
        limit = self._timeout if timeout is None else timeout
        if limit <= timedelta(0):
            raise ccl.Timeout(f"Rank {self._rank} timed out in monitoredBarrier after 0 ms.")
        token = torch.zeros(1, dtype=torch.uint8)
        call = Call("monitored_barrier", limit)
        self._post(
            Tensors([token]),
            lambda lane: self.communicator.all_reduce_async(token, **self._options(call, lane)),
        ).wait()

    def get_error(self) -> Any:
        """The kind of the last failure among the current members. An abort is not a failure."""
        error, kinds = self._counts.errors.latest, torch._C._distributed_c10d.ErrorType
        if error is None:
            return kinds.SUCCESS
        if isinstance(error, TimeoutError):
            return kinds.TIMEOUT
        return kinds.REMOTE_ERROR if isinstance(error, ccl.Retryable) else kinds.COMM_ERROR

    def _post(
        self,
        tensors: Tensors,
        start: Callable[[int], ccl.Handle | None],
        finish: Callable[[Any], object] | None = None,
    ) -> Work:
        attempt = self._attempt
        if attempt is None or not attempt.is_formed:
            raise ccl.InvalidUsage(
                "the group has no members: call reconfigure and wait for the work that it returns, at the "
                "start, after an abort, and after an attempt that failed"
            )
        return super()._post(tensors, start, finish)


@dataclass(frozen=True)
class Members:
    """The processes that are to form a group, in rank order, and the rank of this one."""

    uuid: int
    handles: list[str]
    rank: int

    @property
    def group(self) -> int:
        """The number of the peer group.

        The uuid alone would not do. If torchft's replicas have several ranks, the ranks with the same number
        in their replicas form a group, and all these groups have the same uuid.
        """
        named = "\n".join([str(self.uuid), *sorted(self.handles)])
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big")

    @property
    def name(self) -> str:
        """The name of this process in errors."""
        return f"rank {self.rank}, {socket.gethostname()[:HOST_CHARACTERS_MAX]}:{os.getpid()}"

    def meet(self, communicator: ccl.Communicator, timeout: timedelta) -> dict[int, int]:
        """Waits until all of them have joined. Returns their ranks, by peer."""
        name = f"reconfigure to uuid {self.uuid}"
        outcome = communicator.barrier(deadline=timeout, caller=name)
        return {peer: rank for rank, peer in enumerate(outcome.contributors)}

    def explain(self, error: BaseException) -> BaseException:
        """Names the uuid instead of the number of its peer group, which the caller does not know."""
        if isinstance(error, ccl.Refused):
            return ccl.Refused(str(error).replace(str(self.group), f"of uuid {self.uuid}"))
        return error


class Reconfiguration(dist._Work):  # type: ignore[name-defined]
    """An attempt to reconfigure a group, and the resulting connection."""

    def __init__(self, group: Reconfigurable, members: Members, timeout: timedelta) -> None:
        super().__init__()
        self.is_formed = False
        self._group: Reconfigurable | None = group
        self._members = members
        self._end = time.monotonic() + timeout.total_seconds()
        self._future = Future([], Counts())
        self._has_ended = threading.Event()
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._connecting: ccl.Connecting | None = None
        self._is_cancelled = False

    def begin(self, before: "Reconfiguration | None", counts: Counts) -> None:
        """Leaves the previous members and connects to the new ones, on a thread of the library."""
        call_soon(lambda: self._run(before, counts))

    def cancel(self) -> None:
        """Gives up the attempt or, if it has succeeded, leaves the members."""
        with self._lock:
            self._is_cancelled = True
            connecting = self._connecting
        if connecting is not None:
            connecting.close()

    def _run(self, before: "Reconfiguration | None", counts: Counts) -> None:
        group, self._group = self._group, None
        assert group is not None
        try:
            if before is not None:
                # The master's farewell takes a round trip, for which nothing here has to wait.
                threading.Thread(target=before.cancel, name="ccl-leave", daemon=True).start()
            if not counts.wait_for_end(self._left().total_seconds()):
                raise ccl.Timeout(
                    "timed out: operations among the previous members have not ended; they may be waiting "
                    "for a continuation (`then`) of the program"
                )
            communicator = self._connect(group).wait()
            ranks = self._members.meet(communicator, self._left())
            group.install(self, communicator, ranks)
        except BaseException as error:
            self._fail(error)
        else:
            self._has_ended.set()
            self._future.set_result([])

    def _fail(self, error: BaseException) -> None:
        was_cancelled = self._is_cancelled
        self.cancel()
        self._connecting = None
        # Torch keeps the error. Its traceback would keep the connection, in a cycle that is never collected.
        error.__traceback__ = error.__context__ = None
        self._error = _given_up() if was_cancelled else self._members.explain(error)
        self._has_ended.set()
        self._future.set_exception(self._error)  # type: ignore[arg-type]

    def _connect(self, group: Reconfigurable) -> ccl.Connecting:
        with self._lock:
            if self._is_cancelled:
                raise _given_up()
            self._connecting = group.connect(self._members, self._left())
            return self._connecting

    def _left(self) -> timedelta:
        return timedelta(seconds=max(self._end - time.monotonic(), LAST_SECONDS))

    # Torch's interface of a work.

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Waits until the members are connected; raises the error if the attempt fails."""
        limit = timeout.total_seconds() if timeout > timedelta(0) else None
        if not self._has_ended.wait(limit):
            raise ccl.Timeout("timed out: the members are not all connected yet; the attempt goes on")
        if self._error is not None:
            raise self._error
        return True

    def synchronize(self) -> None:
        self.wait()

    def is_completed(self) -> bool:
        return self._has_ended.is_set()

    def is_success(self) -> bool:
        return self._has_ended.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        return self._error

    def result(self) -> list[torch.Tensor]:
        self.wait()
        return []

    def get_future(self) -> Any:
        return self._future


def _given_up() -> ccl.Ended:
    return ccl.Ended("the attempt to reconfigure was given up: the group was aborted or reconfigured")
