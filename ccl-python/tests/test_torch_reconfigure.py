"""Groups that are reconfigured in place: torch's scenarios of fault tolerance, in separate processes.

What does not need the backend ccl runs on gloo, too, as a check of the test.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402

import ccl.torch  # noqa: E402

if not hasattr(dist, "_reconfigure"):
    pytest.skip("this torch has no reconfigure", allow_module_level=True)

pytestmark = pytest.mark.torch
WORLD = 3
#: Of attempts that have to fail by it.
SOON_SECONDS = 1.0

on_both = pytest.mark.parametrize("backend", ["ccl", "gloo"])


# What runs in a member.


def reconfigure(uuid: int, handles: Any, seconds: float = HANG_SECONDS) -> tuple[int, int]:
    work = dist._reconfigure(uuid, handles, timeout=timedelta(seconds=seconds))
    assert work.wait()
    return dist.get_rank(), dist.get_world_size()


def sum_ranks() -> float:
    """All of them, one more each."""
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
    """What becomes of an all-reduce that the others never come to, and of the next, and the error."""
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
    ccl.torch.raise_pending()  # whoever aborts knows
    return [*hooks, group.get_backend(torch.device("cpu")).get_error().name]


def abort_an_attempt(uuid: int, handles: list[str]) -> str:
    """What becomes of an attempt that the others never come to."""
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
    """The second time while the first is under way."""
    first = dist._reconfigure(uuids[0], handles, timeout=timedelta(seconds=HANG_SECONDS))
    told = reconfigure(uuids[1], handles)
    with pytest.raises(ccl.Ended):
        first.wait()
    return told


def train() -> list[float]:
    """Two steps of DDP on data of this rank; the weights then."""
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
    dist.barrier()


def refuse(handles: list[str], uuid: int) -> list[str]:
    """What attempts that cannot be made say, none of which changes anything."""
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


def error() -> str:
    group: Any = dist.group.WORLD
    return group.get_error().name  # type: ignore[no-any-return]


COMMANDS: dict[str, Callable[..., Any]] = {
    "abort": abort,
    "abort an attempt": abort_an_attempt,
    "barrier": wait_for_the_others,
    "error": error,
    "handle": handle,
    "identity": identity,
    "reconfigure": reconfigure,
    "reconfigure twice": reconfigure_twice,
    "refuse": refuse,
    "stuck": abort_a_stuck_call,
    "sum": sum_ranks,
    "train": train,
    "use all": use_all,
}


def serve(pipe: Pipe, backend: str, address: str, folder: str, rank: int) -> None:
    """Does what it is told, one call after the other."""
    ccl.torch.use_master(address)
    dist.init_process_group(
        backend,
        store=dist.FileStore(f"{folder}/store", WORLD),
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=HANG_SECONDS if backend == "ccl" else 5),
        enable_reconfigure=True,
    )
    pipe.say("ready")
    while (command := pipe.wait()) is not None:
        name, arguments = command
        try:
            pipe.say((None, COMMANDS[name](*arguments)))
        except Exception as error:
            pipe.say((type(error).__name__, str(error)))


# What the test does with them.


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

    def ask(self, name: str, *arguments: Any) -> Any:
        self.tell(name, *arguments)
        return self.answer()

    def kill(self) -> None:
        self._peer.process.kill()
        self._peer.process.join(HANG_SECONDS)


class Cluster:
    """Up to three members; a number names one."""

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
        """What each of them answers to the same."""
        for number in numbers:
            self[number].tell(name, *arguments)
        return [self[number].answer() for number in numbers]

    def begin(self, numbers: list[int], *, seconds: float = HANG_SECONDS) -> None:
        """Has these, and no others, begin to make a group, in this order."""
        self.begin_of(numbers, numbers, seconds=seconds)

    def begin_of(self, callers: list[int], numbers: list[int], *, seconds: float) -> None:
        """As `begin`, where only some of them call."""
        handles = self.ask_all(numbers, "handle")
        uuid = self.uuid()
        for number in callers:
            self[number].tell("reconfigure", uuid, handles, seconds)

    def uuid(self) -> int:
        """One that was not used before: of 64 bits, with a sign."""
        return -next(self._uuids) * (1 << 40)

    def expect_formed(self, numbers: list[int]) -> None:
        told = [self[number].answer() for number in numbers]
        assert told == [(rank, len(numbers)) for rank in range(len(numbers))]

    def form(self, *groups: list[int]) -> None:
        """Has all of these groups made at once, and used."""
        for numbers in groups:
            self.begin(numbers)
        for numbers in groups:
            self.expect_formed(numbers)
        for numbers in groups:
            size = len(numbers)
            assert self.ask_all(numbers, "sum") == [size * (size + 1) / 2] * size


@contextmanager
def cluster_of(backend: str, folder: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        master = stack.enter_context(ccl.Master(listen="127.0.0.1:0", new_run=True))

        def start(rank: int) -> Peer:
            peer = Peer(serve, backend, master.address, str(folder), rank)
            stack.callback(peer.end)
            return peer

        cluster = Cluster(start)
        for number in range(WORLD - 1):
            cluster[number]  # they start at the same time
        cluster.stop_master = master.close
        yield cluster


@pytest.fixture
def cluster(backend: str, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(backend, tmp_path) as cluster:
        yield cluster


@on_both
def test_handles_give_the_ranks(cluster: Cluster) -> None:
    cluster.form([2, 0, 1])


@on_both
@pytest.mark.parametrize("victim", [1, 2])
def test_the_others_go_on_without_one_that_was_killed(cluster: Cluster, victim: int) -> None:
    cluster.form([0, 1, 2])
    cluster.kill(victim)
    cluster.form([number for number in range(WORLD) if number != victim])


@on_both
def test_down_and_up(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    cluster.form([0, 1])
    cluster.form([0, 1, 2])
    cluster.form([2, 0])
    cluster.form([1, 2, 0])


@on_both
def test_from_one_to_all(cluster: Cluster) -> None:
    cluster.form([0])
    cluster.form([0, 1, 2])


@on_both
def test_the_group_is_the_same_object_throughout(cluster: Cluster) -> None:
    before = cluster.ask_all([0, 1], "identity")
    for _ in range(3):
        cluster.form([0, 1])
    assert cluster.ask_all([0, 1], "identity") == before


@on_both
def test_one_comes_late(cluster: Cluster) -> None:
    cluster.form([0, 1])
    cluster.form([0, 1, 2])  # the third starts here


@on_both
def test_groups_merge_and_split(cluster: Cluster) -> None:
    cluster.form([0, 1], [2])
    cluster.form([2, 1, 0])
    cluster.form([0], [1, 2])
    cluster.form([0], [1], [2])
    cluster.form([0, 1, 2])


@on_both
def test_a_set_of_handles_gives_everyone_a_rank(cluster: Cluster) -> None:
    handles = cluster.ask_all([0, 1, 2], "handle")
    told = cluster.ask_all([0, 1, 2], "reconfigure", cluster.uuid(), set(handles))
    assert sorted(told) == [(0, 3), (1, 3), (2, 3)]
    assert cluster.ask_all([0, 1, 2], "sum") == [6, 6, 6]


@on_both
def test_after_an_abort_they_meet_again(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    cluster.ask_all([0, 1, 2], "abort")
    cluster.form([0, 1, 2])


on_ccl = pytest.mark.parametrize("backend", ["ccl"])


@on_ccl
def test_an_abort_ends_a_stuck_call_on_another_thread(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    assert cluster[0].ask("stuck") == ["hook", "SUCCESS"]
    cluster.form([1, 0, 2])


@on_ccl
def test_an_abort_ends_an_attempt(cluster: Cluster) -> None:
    cluster.form([0, 1])
    handles = cluster.ask_all([0, 1], "handle")
    assert cluster[0].ask("abort an attempt", cluster.uuid(), handles) == "Ended"
    cluster.form([0, 1])


@on_ccl
def test_a_new_attempt_replaces_the_one_under_way(cluster: Cluster) -> None:
    handles = cluster.ask_all([0, 1], "handle")
    first, second = cluster.uuid(), cluster.uuid()
    cluster[0].tell("reconfigure twice", (first, second), handles)
    cluster[1].tell("reconfigure", second, handles)
    cluster.expect_formed([0, 1])


@on_ccl
def test_whoever_is_left_out_is_told_nothing_and_does_not_hang(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    cluster.form([0, 1])
    cluster[2].tell("sum")
    assert cluster[2].failure()[0] in ("PeerLost", "TooFewPeers")
    assert cluster[2].ask("error") == "REMOTE_ERROR"
    assert cluster.ask_all([0, 1], "sum") == [3, 3], "the others do not notice"
    cluster.form([0, 1, 2])


@on_ccl
def test_a_call_that_lost_a_member_fails_at_all_others(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    for number in [0, 1]:
        cluster[number].tell("sum")
    cluster.kill(2)
    for number in [0, 1]:
        assert cluster[number].failure()[0] in ("PeerLost", "TooFewPeers")
    cluster.form([0, 1])


@on_ccl
def test_a_monitored_barrier_names_the_ranks_that_do_not_come(cluster: Cluster) -> None:
    cluster.form([1, 2, 0])
    cluster.ask_all([0, 1, 2], "barrier", HANG_SECONDS)
    cluster[2].tell("barrier", SOON_SECONDS)
    kind, text = cluster[2].failure()
    assert kind == "DeadlinePassed" and "timed out" in text
    assert "rank 0, " in text and "rank 2, " in text and "had not called it" in text
    assert cluster[2].ask("error") == "TIMEOUT"
    for number in [0, 1]:
        cluster[number].tell("barrier", HANG_SECONDS)
        assert cluster[number].failure()[0] == "DeadlinePassed", "the one of before, for all"
    cluster.ask_all([0, 1, 2], "barrier", HANG_SECONDS)


@on_ccl
def test_an_attempt_that_lacks_one_fails_in_time_and_leaves_nothing_behind(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    cluster.begin_of([0, 1], [0, 1, 2], seconds=SOON_SECONDS)
    for number in [0, 1]:
        kind, text = cluster[number].failure()
        assert kind == "NotAdmitted" and "of 3 peers" in text
        cluster[number].tell("sum")
        assert "has no members" in cluster[number].failure()[1]
    cluster.form([0, 1, 2])


@on_ccl
def test_an_attempt_of_one_that_dies_in_it_fails_in_time(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    cluster.begin_of([1, 2], [0, 1, 2], seconds=SOON_SECONDS)
    cluster.kill(2)
    assert cluster[1].failure()[0] == "NotAdmitted"
    cluster.form([0, 1])


@on_ccl
def test_lists_that_differ_are_noticed(cluster: Cluster) -> None:
    first, second = cluster.ask_all([0, 1], "handle")
    uuid = cluster.uuid()
    cluster[0].tell("reconfigure", uuid, [first, second])
    cluster[1].tell("reconfigure", uuid, [second, first])
    for number in [0, 1]:
        kind, text = cluster[number].failure()
        assert (kind, "handles with hash" in text) == ("Cancelled", True), text
    cluster.form([0, 1])


@on_ccl
def test_what_cannot_be_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    cluster[0].tell("sum")
    assert "has no members: call reconfigure" in cluster[0].failure()[1]
    handles = cluster.ask_all([0, 1], "handle")
    uuid = cluster.uuid()
    assert cluster.ask_all([0, 1], "reconfigure", uuid, handles) == [(0, 2), (1, 2)]
    used, missing, twice = cluster[0].ask("refuse", handles, uuid)
    assert f"uuid {uuid} is already used" in used
    assert "is not among the 1 given" in missing and "is given twice" in twice
    assert cluster.ask_all([0, 1], "sum") == [3, 3]


@on_ccl
def test_ddp_trains_among_whoever_is_there(cluster: Cluster) -> None:
    for numbers in [[0, 1, 2], [1, 0]]:
        cluster.form(numbers)
        cluster.ask_all(numbers, "use all")
        first, *others = cluster.ask_all(numbers, "train")
        assert others == [first] * len(others)


@on_ccl
def test_it_goes_on_without_a_process_that_made_the_store(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    cluster.kill(0)
    cluster.form([2, 1])


@on_ccl
def test_without_a_master_attempts_fail_in_time(cluster: Cluster) -> None:
    cluster.form([0, 1])
    cluster.stop_master()
    cluster.begin([0, 1], seconds=SOON_SECONDS)
    for number in [0, 1]:
        assert cluster[number].failure()[0] == "MasterUnreachable"


def refuse_in_an_elastic_run(_pipe: Pipe, address: str) -> None:
    method = f"ccl://{address}?initial_world_size=1"
    with pytest.raises(ccl.InvalidUsage, match="an elastic run.*use_master"):
        dist.init_process_group("ccl", init_method=method, enable_reconfigure=True)
    dist.init_process_group("ccl", init_method=method)
    group: Any = dist.group.WORLD
    assert not group.supports_reconfigure and group.is_elastic
    dist.destroy_process_group()


def test_an_elastic_run_is_not_reconfigured() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peer = Peer(refuse_in_an_elastic_run, master.address)
        try:
            peer.receive()
        finally:
            peer.end()
