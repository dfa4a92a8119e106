"""Registers the backend with torch: its name, how it creates groups, and ``ccl://`` addresses."""

import importlib
import pickle
import secrets
from array import array
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, urlparse

import torch.distributed as dist

import ccl
from ccl.torch import _guards
from ccl.torch._group import ATTEMPTS, FIRST_TAG, Group
from ccl.torch._monitored import MonitoredBarriers
from ccl.torch._parts import Parts
from ccl.torch._reconfigure import Members, Reconfigurable

NAME = "ccl"

#: Below the tags that groups use.
SHARE_TAG = FIRST_TAG - 1
MEETING_TAG = FIRST_TAG - 2

T = TypeVar("T")

_master: str | None = None
_settings: dict[str, Any] = {}
_elastic: "_Run | None" = None


class _Run:
    """An elastic run: a communicator, and the groups that share it.

    Torch numbers groups per process, so members and newcomers would count differently. Here numbering
    restarts at each safe point that admits newcomers. At that point all groups except the default one
    end, because newcomers do not have them.
    """

    def __init__(self, communicator: ccl.Communicator) -> None:
        self.communicator = communicator
        self._groups: list[Group] = []
        self._next = 0
        self._is_newcomer = True
        self._meet()

    @property
    def is_over(self) -> bool:
        """The run ends when its first group ends."""
        return bool(self._groups) and self._groups[0].is_over

    def make_group(self, rank: int, size: int, timeout: timedelta) -> Group:
        group = Group(self.communicator, rank, size, None, self._next, timeout)
        self._next += 1
        self._groups.append(group)
        return group

    def update_topology(self) -> ccl.View:
        for group in self._groups:
            group.restart_streams()
        self.communicator.update_topology()
        self._meet()
        return self.communicator.view

    def _meet(self) -> None:
        """Finds out, with all members, whether there are newcomers. Views do not tell: a newcomer that
        is lost at once may be in the views of only some members."""
        told = bytearray([self._is_newcomer])
        self.communicator.all_reduce(
            told, "max", tag=MEETING_TAG, attempts=ATTEMPTS, caller="meeting of newcomers"
        )
        if told[0]:
            for group in self._groups[1:]:
                group.retire()
            del self._groups[1:]
            self._next = len(self._groups)
        self._is_newcomer = False


def use_master(address: str, **settings: Any) -> None:
    """Sets the master for groups of fixed ranks. Takes the settings of ``ccl.Communicator``.

    Each group of torch becomes a separate peer group in the master's run.
    """
    global _master
    _check_name()
    _master = address
    _settings.clear()
    _settings.update(settings)


def reconfigurable_group(timeout: timedelta = dist.default_pg_timeout) -> dist.ProcessGroup:
    """A group as `init_process_group("ccl", enable_reconfigure=True)` makes it, beside torch's default group.

    For torchft's `Manager`, where the default group is a replica's own. Torch does not list it: close
    it by its `shutdown`.
    """
    _check_name()
    _check_master()
    return Reconfigurable(_connect, 0, 1, timeout)


def communicator(group: dist.ProcessGroup | None = None) -> ccl.Communicator:
    """The communicator of a group, by default of the default group."""
    found = dist.group.WORLD if group is None else group
    if not isinstance(found, Group):
        _check_name()
        raise TypeError("the group does not run on the backend ccl")
    return found.communicator


def update_topology() -> ccl.View:
    """The safe point of an elastic run, at which newcomers enter. All members must call it, with no
    torch operation in progress.

    If the world has grown, members must then pass their state to the newcomers, for example with
    ``share``.
    """
    run = _elastic_run()
    if run is None:
        raise ccl.InvalidUsage("only an elastic run, created with a ccl:// address, admits newcomers")
    return run.update_topology()


def share(value: T) -> T:
    """Returns the value of the oldest member (rank 0) on all members of an elastic run. Uses pickle.

    Torch's own object broadcasts cannot do this, because there every process is rank 0.
    """
    elastic = _elastic_run()
    if elastic is None:
        raise ccl.InvalidUsage("only an elastic run, created with a ccl:// address, has newcomers")
    run = elastic.communicator
    while True:
        is_source = run.rank == 0
        data = bytearray(pickle.dumps(value) if is_source else b"")
        head = array("q", [len(data), is_source])
        run.all_reduce(head, tag=SHARE_TAG, attempts=ATTEMPTS)
        size, sources = head
        told = [data if is_source else bytearray(size), bytearray([is_source])]
        run.all_reduce_many(told, tag=SHARE_TAG, attempts=ATTEMPTS)
        if sources == 1 and told[1][0] == 1:
            return value if is_source else cast(T, pickle.loads(told[0]))
        # The source died, or has only now become the oldest. All members see this and retry.


def _elastic_run() -> _Run | None:
    """The elastic run in progress."""
    return None if _elastic is None or _elastic.is_over else _elastic


def _create(options: Any, _backend_options: Any) -> Group:
    """Creates the group that torch describes. Torch before 2.14 has no `enable_reconfigure`."""
    is_reconfigurable = getattr(options, "enable_reconfigure", False)
    rank, size, timeout = options.group_rank, options.group_size, options.timeout
    run = _elastic_run()
    if run is not None and is_reconfigurable:
        _end_elastic_run(run)
        raise ccl.InvalidUsage(
            "an elastic run, created with a ccl:// address, manages its members itself: call "
            "ccl.torch.use_master and pass init_process_group another init_method, or leave out "
            "enable_reconfigure"
        )
    if run is not None:
        return run.make_group(rank, size, timeout)
    _check_master()
    if is_reconfigurable:
        return Reconfigurable(_connect, rank, size, timeout)
    return _make_fixed(options.store, rank, size, timeout)


def _check_master() -> None:
    # The first collective would import it, for seconds, while the other ranks wait.
    importlib.import_module("torch._dynamo")
    if _master is None:
        raise RuntimeError(
            "the backend ccl needs a master: start one with `ccl master`, and call "
            'ccl.torch.use_master("host:port") before creating the group, or pass init_process_group '
            'the init_method "ccl://host:port?initial_world_size=N" for a run that peers may join'
        )


def _make_fixed(store: Any, rank: int, size: int, timeout: timedelta) -> Group:
    assert _master is not None
    if rank == 0:
        store.set("ccl/group", str(secrets.randbits(64)))
    number = int(store.get("ccl/group"))
    defaults = {"connect_timeout": timeout, "operation_timeout": timeout}
    comm = ccl.Communicator(
        _master, **{**defaults, **_settings, "group": number, "initial_world_size": size}
    )
    told = array("q", [0] * comm.world_size)
    contributors = comm.all_gather(array("q", [rank]), told).contributors
    ranks = dict(zip(contributors, told, strict=True))
    group = Group(comm, rank, size, ranks, 0, timeout)
    group.monitored_barriers = MonitoredBarriers(store, rank, size)
    group.parts = Parts(_make_fixed, store)
    return group


def _connect(members: Members, timeout: timedelta) -> ccl.Connecting:
    """Starts connecting to the closed group of these members."""
    assert _master is not None
    own = {"group": members.group, "members": members.handles, "rank": members.rank}
    whole = {"min_world_size": len(members.handles), "connect_timeout": timeout}
    settings = {"name": members.name, **_settings, **own, **whole}
    return ccl.Communicator.connect_async(_master, **settings)


def _end_elastic_run(run: _Run) -> None:
    global _elastic
    _elastic = None
    run.communicator.close()


def _rendezvous(
    url: str, timeout: timedelta = timedelta(minutes=10), **_arguments: Any
) -> Iterator[tuple[dist.Store, int, int]]:  # type: ignore[name-defined]
    global _elastic
    _check_name()
    parts = urlparse(url)
    if parts.path not in ("", "/"):
        raise ccl.InvalidArgument(f"{url}: {parts.path!r} after the address is not allowed")
    settings: dict[str, Any] = {"connect_timeout": timeout, "operation_timeout": timeout}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        _check_setting(name, value)
        settings[name] = int(value) if value.isdecimal() else value
    _guards.install()
    communicator = ccl.Communicator(parts.netloc, **settings)
    try:
        _elastic = _Run(communicator)
    except BaseException:
        communicator.close()
        raise
    yield dist.HashStore(), 0, 1
    raise RuntimeError("connect again with init_process_group")


def _check_setting(name: str, value: str) -> None:
    """Refuses ``rank`` and ``world_size``; torch adds them from the arguments of ``init_process_group``."""
    if name in ("rank", "world_size"):
        raise ccl.InvalidArgument(
            f"{name}={value} cannot be used: a ccl:// address makes an elastic run, in which the master "
            "assigns ranks and peers come and go. Leave rank and world_size out of the address and of "
            "init_process_group, and set initial_world_size=N to the number of peers at the start; for "
            "fixed ranks call ccl.torch.use_master and pass init_process_group another init_method"
        )


def _check_name() -> None:
    """Raises if another package took the name: torch silently keeps the last registration."""
    plugin = dist.Backend._plugins.get(NAME.upper())
    if plugin is None or plugin.creator_fn is _create:
        return
    other = getattr(plugin.creator_fn, "__module__", None) or "another package"
    raise RuntimeError(
        f"{other} has registered the torch.distributed backend {NAME!r}, as Intel's oneCCL bindings do. "
        "Only one of the two can use the name in a process: do not import "
        "oneccl_bindings_for_pytorch, or that package, in processes that use ccl.torch"
    )


_check_name()
dist.Backend.register_backend(NAME, _create, extended_api=True, devices=["cpu", "cuda"])
# Otherwise torch would attach a recorder that only works with its own groups.
_self_recording: set[str] = getattr(dist.distributed_c10d, "_FR_SELF_RECORDING_BACKENDS", set())
_self_recording.add(NAME)
dist.register_rendezvous_handler(NAME, _rendezvous)
