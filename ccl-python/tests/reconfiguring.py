"""Members of reconfigurable torch groups: what runs in them, and the test's control over them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import ccl
import ccl.torch
import pytest
import torch
import torch.distributed as dist
from ccl.torch._reconfigure import Members
from peers import HANG_SECONDS, Peer, Pipe

WORLD = 3
#: The timeout of attempts that must fail by it.
SOON_SECONDS = 1.0


# What runs in a member.


def reconfigure(uuid: int, handles: Any, seconds: float = HANG_SECONDS) -> tuple[int, int]:
    work = dist._reconfigure(uuid, handles, timeout=timedelta(seconds=seconds))
    assert work.wait()
    return dist.get_rank(), dist.get_world_size()


class Dying:
    """A communicator whose process is killed as soon as it has started an operation."""

    def __init__(self, communicator: ccl.Communicator) -> None:
        self._communicator = communicator

    def __getattr__(self, operation: str) -> Any:
        start = getattr(self._communicator, f"{operation}_async")

        def call(*arguments: Any, **options: Any) -> None:
            start(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        return call


def die_while_all_meet(uuid: int, handles: list[str]) -> None:
    meet: Any = Members.meet

    def die(members: Members, communicator: ccl.Communicator, timeout: timedelta) -> Any:
        return meet(members, Dying(communicator), timeout)

    setattr(Members, "meet", die)
    reconfigure(uuid, handles)


def sum_ranks() -> float:
    """The sum of all ranks, each plus one."""
    whole = torch.tensor([dist.get_rank() + 1.0])
    dist.all_reduce(whole)
    return float(whole)


def identity() -> int:
    return id(dist.group.WORLD)


def handle() -> str:
    return dist._get_reconfigure_handle()  # type: ignore[no-any-return]


def abort() -> None:
    group: Any = dist.group.WORLD
    group.abort()


def abort_a_stuck_call() -> list[str]:
    """Aborts an all-reduce that the others never call; returns its end, that of the next, and the error."""
    group: Any = dist.group.WORLD
    hooks: list[str] = []
    group.register_abort_hook(1, lambda: hooks.append("hook"))
    group.register_abort_hook(2, lambda: hooks.append("a hook that was withdrawn"))
    group.unregister_abort_hook(2)
    work = dist.all_reduce(torch.ones(3), async_op=True)
    aborter = threading.Thread(target=group.abort)
    aborter.start()
    with pytest.raises(ccl.Ended):
        work.wait()
    aborter.join()
    group.unregister_abort_hook(1)
    with pytest.raises(ccl.InvalidUsage, match="has no members: call reconfigure"):
        dist.all_reduce(torch.ones(3))
    ccl.torch.raise_pending()  # the caller of `abort` knows it
    return [*hooks, group.get_backend(torch.device("cpu")).get_error().name]


def abort_an_attempt(uuid: int, handles: list[str]) -> str:
    """Aborts an attempt that the others never make; returns its end."""
    group: Any = dist.group.WORLD
    work = dist._reconfigure(uuid, handles, timeout=timedelta(seconds=HANG_SECONDS))
    group.abort()
    with pytest.raises(ccl.Ended):
        work.wait()
    future = work.get_future()
    with pytest.raises(RuntimeError, match="Ended|given up|closed"):
        future.wait()
    assert work.is_completed() and not work.is_success()
    return type(work.exception()).__name__


def reconfigure_twice(uuids: tuple[int, int], handles: list[str]) -> tuple[int, int]:
    """Reconfigures again while the first attempt is in progress."""
    first = dist._reconfigure(uuids[0], handles, timeout=timedelta(seconds=HANG_SECONDS))
    told = reconfigure(uuids[1], handles)
    with pytest.raises(ccl.Ended):
        first.wait()
    return told


def replace_a_stuck_call(uuid: int, handles: list[str]) -> tuple[int, int]:
    """Reconfigures during an all-reduce that the others never call."""
    work = dist.all_reduce(torch.ones(3), async_op=True)
    told = reconfigure(uuid, handles)
    # The other member may have left the old group before this one did.
    with pytest.raises((ccl.Ended, ccl.TooFewPeers, ccl.PeerLost)):
        work.wait()
    return told


def use_a_subgroup() -> list[float]:
    """The sum of the last two ranks, in a group created by `new_group`."""
    size, whole = dist.get_world_size(), torch.tensor([dist.get_rank() + 1.0])
    ranks = [size - 2, size - 1]
    group: Any = dist.new_group(ranks, timeout=timedelta(seconds=HANG_SECONDS))
    if dist.get_rank() in ranks:
        dist.all_reduce(whole, group=group)
        dist.destroy_process_group(group)
    return whole.tolist()  # type: ignore[no-any-return]


def train() -> list[float]:
    """Makes two steps of DDP on this rank's data; returns the weights."""
    torch.manual_seed(0)
    replica = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(replica.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        replica(torch.full((1, 2), dist.get_rank() + 1.0)).sum().backward()
        optimizer.step()
    return [float(weight) for weight in replica.module.weight.detach().flatten()]


def use_all() -> None:
    """Collectives that need to know the ranks."""
    rank, size = dist.get_rank(), dist.get_world_size()
    own = torch.tensor([float(rank)])
    parts = [torch.zeros(1) for _ in range(size)]
    dist.all_gather(parts, own)
    assert [int(part) for part in parts] == list(range(size))
    told = own.clone()
    dist.broadcast(told, src=size - 1)
    assert told.item() == size - 1
    share = torch.zeros(1)
    dist.reduce_scatter(share, [own + place for place in range(size)])
    assert share.item() == size * rank + size * (size - 1) / 2
    objects: list[Any] = [None] * size
    dist.all_gather_object(objects, f"rank {rank}")
    assert objects == [f"rank {each}" for each in range(size)]
    gathered = [torch.zeros(1) for _ in range(size)] if rank == size - 1 else None
    dist.gather(own, gathered, dst=size - 1)
    assert gathered is None or [int(part) for part in gathered] == list(range(size))
    exchanged = torch.zeros(size)
    dist.all_to_all_single(exchanged, 10 * own + torch.arange(float(size)))
    assert exchanged.tolist() == [10 * source + rank for source in range(size)]
    dist.barrier()


def refuse(handles: list[str], uuid: int) -> list[str]:
    """The errors of invalid attempts, none of which changes anything."""
    group: Any = dist.group.WORLD
    own = dist._get_reconfigure_handle()
    texts = []
    for number, given in [(uuid, handles), (uuid + 1, ["another"]), (uuid + 1, [own, own])]:
        with pytest.raises(ccl.Error) as caught:
            dist._reconfigure(number, given)
        texts.append(str(caught.value))
    assert group.supports_reconfigure and dist._supports_reconfigure()
    return texts


def wait_for_the_others(seconds: float) -> None:
    dist.monitored_barrier(timeout=timedelta(seconds=seconds))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def fail_often(uuid: int, handles: list[str], seconds: float) -> bool:
    """Whether attempts that fail leave no thread behind; each has several while it lasts."""
    before = threads()
    for attempt in range(20):
        work = dist._reconfigure(uuid + attempt, handles, timeout=timedelta(seconds=seconds))
        with pytest.raises(ccl.Error):
            work.wait()
    end = time.monotonic() + HANG_SECONDS
    while threads() > before + 1 and time.monotonic() < end:
        threading.Event().wait(0.01)
    return threads() <= before + 1


def reconfigure_in_a_child(uuid: int, handles: list[str]) -> int:
    """The exit status of a forked child: 0 if it is refused."""
    child = os.fork()
    if child == 0:
        try:
            dist._reconfigure(uuid, handles)
        except ccl.Forked:
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def error() -> str:
    group: Any = dist.group.WORLD
    return group.get_error().name  # type: ignore[no-any-return]


COMMANDS: dict[str, Callable[..., Any]] = {
    "abort": abort,
    "abort an attempt": abort_an_attempt,
    "barrier": wait_for_the_others,
    "die while all meet": die_while_all_meet,
    "error": error,
    "fail often": fail_often,
    "fork": reconfigure_in_a_child,
    "handle": handle,
    "identity": identity,
    "reconfigure": reconfigure,
    "reconfigure twice": reconfigure_twice,
    "refuse": refuse,
    "replace a stuck call": replace_a_stuck_call,
    "stuck": abort_a_stuck_call,
    "subgroup": use_a_subgroup,
    "sum": sum_ranks,
    "train": train,
    "use all": use_all,
}


def serve(pipe: Pipe, backend: str, address: str, folder: str, rank: int) -> None:
    """Carries out the test's commands, one after another."""
    ccl.torch.use_master(address)
    store: Any = dist.FileStore(f"{folder}/store", WORLD)
    begin(backend, store, rank, WORLD)
    obey(pipe)


def serve_alone(pipe: Pipe, backend: str, address: str, _folder: str, _rank: int) -> None:
    """The same, for a process that shares no store with the others."""
    ccl.torch.use_master(address)
    begin(backend, dist.HashStore(), 0, 1)
    obey(pipe)


def begin(backend: str, store: Any, rank: int, size: int) -> None:
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=HANG_SECONDS if backend == "ccl" else 5),
        enable_reconfigure=True,
    )


def obey(pipe: Pipe) -> None:
    pipe.say("ready")
    while (command := pipe.wait()) is not None:
        name, arguments = command
        try:
            pipe.say((None, COMMANDS[name](*arguments)))
        except Exception as error:
            pipe.say((type(error).__name__, str(error)))


# The test's side.


class Member:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._is_ready = False

    def tell(self, name: str, *arguments: Any) -> None:
        if not self._is_ready:
            assert self._peer.receive() == "ready"
            self._is_ready = True
        self._peer.pipe.send((name, arguments))

    def answer(self) -> Any:
        failure, value = self._peer.receive()
        assert failure is None, f"{failure}: {value}"
        return value

    def failure(self) -> tuple[str, str]:
        kind, text = self._peer.receive()
        assert kind is not None, f"it succeeded: {text}"
        return kind, text

    def outcome(self) -> Any:
        """The answer, or the class of the error."""
        failure, value = self._peer.receive()
        return failure or value

    def ask(self, name: str, *arguments: Any) -> Any:
        self.tell(name, *arguments)
        return self.answer()

    def kill(self) -> None:
        self._peer.process.kill()
        self._peer.process.join(HANG_SECONDS)


class Cluster:
    """Up to three members, by number."""

    address: str
    stop_master: Callable[[], None]

    def __init__(self, start: Callable[[int], Peer]) -> None:
        self._start = start
        self._members: dict[int, Member] = {}
        self._uuids = count(1)

    def __getitem__(self, number: int) -> Member:
        if number not in self._members:
            self._members[number] = Member(self._start(number))
        return self._members[number]

    def kill(self, number: int) -> None:
        self._members.pop(number).kill()

    def ask_all(self, numbers: list[int], name: str, *arguments: Any) -> list[Any]:
        """The answers of all of them to the same command."""
        for number in numbers:
            self[number].tell(name, *arguments)
        return [self[number].answer() for number in numbers]

    def begin(self, numbers: list[int], *, seconds: float = HANG_SECONDS) -> None:
        """Makes these members, and no others, start forming a group in this order."""
        self.begin_of(numbers, numbers, seconds=seconds)

    def begin_of(self, callers: list[int], numbers: list[int], *, seconds: float) -> None:
        """As `begin`, but only some of them call."""
        handles = self.ask_all(numbers, "handle")
        uuid = self.uuid()
        for number in callers:
            self[number].tell("reconfigure", uuid, handles, seconds)

    def uuid(self) -> int:
        """A new uuid: 64 bits, signed."""
        return -next(self._uuids) * (1 << 40)

    def expect_formed(self, numbers: list[int]) -> None:
        told = [self[number].answer() for number in numbers]
        assert told == [(rank, len(numbers)) for rank in range(len(numbers))]

    def form(self, *groups: list[int]) -> None:
        """Forms all these groups at once, and uses them."""
        for numbers in groups:
            self.begin(numbers)
        for numbers in groups:
            self.expect_formed(numbers)
        for numbers in groups:
            size = len(numbers)
            assert self.ask_all(numbers, "sum") == [size * (size + 1) / 2] * size


@contextmanager
def cluster_of(
    backend: str, folder: Path, body: Callable[..., None] = serve
) -> Iterator[Cluster]:
    with ExitStack() as stack:
        master = stack.enter_context(ccl.Master(listen="127.0.0.1:0", new_run=True))

        def start(rank: int) -> Peer:
            peer = Peer(body, backend, master.address, str(folder), rank)
            stack.callback(peer.end)
            return peer

        cluster = Cluster(start)
        for number in range(WORLD - 1):
            cluster[number]  # they start at the same time
        cluster.address, cluster.stop_master = master.address, master.close
        yield cluster
