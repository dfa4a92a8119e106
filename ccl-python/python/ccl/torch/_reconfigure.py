"""Groups whose members change in place, as torch's API of fault tolerance has it.

Each set of members is a peer group of its own at the master, numbered by torch's uuid and its handles. It
takes all of its members: an operation that lacks one fails, and the program says by `reconfigure` who goes on.
"""

import hashlib
import os
import secrets
import socket
import threading
import time
from array import array
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

#: Attempts that a group remembers, to refuse their uuids; the oldest is forgotten first.
USED_MAX = 65_536
#: Of a host in the name of a peer, which has 64 bytes.
HOST_CHARACTERS_MAX = 40
#: What is left to an attempt at its deadline, so that what it waits for then fails as any timeout.
LAST_SECONDS = 0.001

#: Starts to connect to these members, which may take so long.
Connect = Callable[["Members", timedelta], ccl.Connecting]


class Reconfigurable(Group):
    """One that has members once `reconfigure` has ended, and others after the next."""

    def __init__(self, connect: Connect, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(None, rank, size, {}, 0, timeout)
        self.connect = connect
        self._handle = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        #: The newest one; none after an abort.
        self._attempt: Reconfiguration | None = None
        self._used: dict[int, None] = {}
        self._abort_hooks: dict[int, Callable[[], None]] = {}

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    # Torch's own code in C++ asks by these names.
    getRank = rank
    getSize = size

    def get_backend(self, device: torch.device) -> Any:
        return self

    supports_abort_hooks = True
    supports_reconfigure = True

    def get_reconfigure_handle(self) -> str:
        return self._handle

    def reconfigure(self, opts: Any) -> "Reconfiguration":
        """Leaves the members it has, and meets those that are told, all or none within the timeout."""
        members = self._members(opts)
        timeout = self._timeout if opts.timeout is None else opts.timeout
        with self._lock:
            if self.is_over:
                raise ccl.InvalidUsage("the group has been destroyed: make a new one")
            if members.group in self._used:
                raise ccl.InvalidUsage(
                    f"uuid {members.uuid} is already used, with the same handles: each attempt to reconfigure needs "
                    "a new one"
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
                "a process that is to stay outside does not call it"
            )
        if len(set(handles)) != len(handles):
            raise ccl.InvalidArgument("reconfigure: a handle is given twice; each rank has its own")
        return Members(opts.uuid, handles, handles.index(self._handle))

    def install(
        self, attempt: "Reconfiguration", communicator: ccl.Communicator, ranks: dict[int, int]
    ) -> None:
        """They have met: operations run among them from now on."""
        with self._lock:
            if self._attempt is not attempt:
                raise _given_up()
            self._communicator, self._ranks = communicator, ranks
            self._rank, self._size = ranks[communicator.peer], len(ranks)
            self._counts = Counts()
            attempt.is_formed = True

    def _forget(self) -> Counts:
        """Whoever reconfigures or aborts knows of errors. Gives what may be under way still."""
        self._together = None
        self._counts.errors.close()
        return self._counts

    def abort(self) -> None:
        """Ends what is under way with an error, and leaves the members; `reconfigure` begins anew."""
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
        """Has it called at the beginning of each `abort`."""
        self._abort_hooks[hook_id] = hook

    def unregister_abort_hook(self, hook_id: int) -> None:
        """Has it called no longer."""
        self._abort_hooks.pop(hook_id, None)

    def monitored_barrier(
        self, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> None:
        """A barrier of which the error names all ranks that do not come in time."""
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
        """What the last failure among the members of now was; an abort is none."""
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
                "beginning, after an abort, and after an attempt that failed"
            )
        return super()._post(tensors, start, finish)


@dataclass(frozen=True)
class Members:
    """Who is to be in a group, in rank order, and which of them this process is."""

    uuid: int
    handles: list[str]
    rank: int

    @property
    def group(self) -> int:
        """The number of their peer group.

        A uuid is not enough: in torchft's replicas of several ranks, those of one number make a group, and
        those of the next another of the same uuid.
        """
        named = "\n".join([str(self.uuid), *sorted(self.handles)])
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big")

    @property
    def name(self) -> str:
        """What errors call this process."""
        return f"rank {self.rank}, {socket.gethostname()[:HOST_CHARACTERS_MAX]}:{os.getpid()}"

    def meet(self, communicator: ccl.Communicator, timeout: timedelta) -> dict[int, int]:
        """Their ranks, by peer."""
        size = len(self.handles)
        if communicator.world_size != size:
            raise ccl.InvalidUsage(
                f"{communicator.world_size} processes came to uuid {self.uuid}, which has {size} handles: it is "
                "in use twice; give a new one"
            )
        told = array("q", [0] * size)
        digest = hashlib.sha256("\n".join(self.handles).encode()).hexdigest()[:16]
        name = f"reconfigure to uuid {self.uuid}, {size} handles with hash {digest}"
        outcome = communicator.all_gather(
            array("q", [self.rank]), told, deadline=timeout, caller=name
        )
        return dict(zip(outcome.contributors, told, strict=True))


class Reconfiguration(dist._Work):
    """An attempt to reconfigure a group, and the connection that comes of it."""

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
        """Leaves the members of before, and meets the new ones, on a thread of the library's."""
        call_soon(lambda: self._run(before, counts))

    def cancel(self) -> None:
        """Gives up, or leaves the members."""
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
                before.cancel()
            if not counts.wait_for_end(self._left().total_seconds()):
                raise ccl.Timeout(
                    "timed out: operations among the members of before have not ended; they may wait for a "
                    "continuation (`then`) of the program"
                )
            communicator = self._connect(group).wait()
            ranks = self._members.meet(communicator, self._left())
            group.install(self, communicator, ranks)
        except BaseException as error:
            self.cancel()
            self._error = error
            self._has_ended.set()
            self._future.set_exception(error)  # type: ignore[arg-type]
        else:
            self._has_ended.set()
            self._future.set_result([])

    def _connect(self, group: Reconfigurable) -> ccl.Connecting:
        with self._lock:
            if self._is_cancelled:
                raise _given_up()
            self._connecting = group.connect(self._members, self._left())
            return self._connecting

    def _left(self) -> timedelta:
        return timedelta(seconds=max(self._end - time.monotonic(), LAST_SECONDS))

    # As torch asks about works.

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Waits until the members have met; raises why they have not."""
        limit = timeout.total_seconds() if timeout > timedelta(0) else None
        if not self._has_ended.wait(limit):
            raise ccl.Timeout("timed out: the members have not met yet; the attempt goes on")
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
