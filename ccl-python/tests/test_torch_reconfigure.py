"""Groups that are reconfigured in place: torch's fault-tolerance scenarios, in separate processes.

Tests that do not need the backend ccl also run on gloo, to check the tests themselves.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
from reconfiguring import SOON_SECONDS, WORLD, Cluster, cluster_of, serve_alone  # noqa: E402

if not hasattr(dist, "_reconfigure"):
    pytest.skip("this torch has no reconfigure", allow_module_level=True)

pytestmark = pytest.mark.torch

on_both = pytest.mark.parametrize("backend", ["ccl", "gloo"])
on_ccl = pytest.mark.parametrize("backend", ["ccl"])


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


@on_ccl
def test_groups_of_other_handles_may_have_the_same_uuid(cluster: Cluster) -> None:
    uuid = cluster.uuid()
    for numbers in [[0, 1], [2]]:
        handles = cluster.ask_all(numbers, "handle")
        for number in numbers:
            cluster[number].tell("reconfigure", uuid, handles)
    cluster.expect_formed([0, 1])
    cluster.expect_formed([2])
    assert cluster.ask_all([0, 1, 2], "sum") == [3, 3, 1]
    # As those of a lighthouse of torchft that has begun anew.
    handles = cluster.ask_all([1, 2], "handle")
    for number in [1, 2]:
        cluster[number].tell("reconfigure", uuid, handles)
    cluster.expect_formed([1, 2])


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


@on_ccl
def test_an_abort_ends_a_stuck_call_on_another_thread(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    assert cluster[0].ask("stuck") == ["hook", "SUCCESS"]
    cluster.form([1, 0, 2])


@on_ccl
def test_a_reconfigure_ends_a_stuck_call(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    handles = cluster.ask_all([0, 1], "handle")
    uuid = cluster.uuid()
    cluster[0].tell("replace a stuck call", uuid, handles)
    cluster[1].tell("reconfigure", uuid, handles)
    cluster.expect_formed([0, 1])


@on_ccl
def test_groups_are_made_of_the_ranks_of_now(cluster: Cluster) -> None:
    cluster.form([2, 0, 1])
    assert cluster.ask_all([2, 0, 1], "subgroup") == [[1], [5], [5]]
    cluster.form([1, 2])
    assert cluster.ask_all([1, 2], "subgroup") == [[3], [3]]


def test_processes_that_share_no_store_meet(tmp_path: Path) -> None:
    with cluster_of("ccl", tmp_path, serve_alone) as cluster:
        for numbers in [[0, 1, 2], [2, 1]]:
            cluster.form(numbers)
            cluster.ask_all(numbers, "use all")
            first, *others = cluster.ask_all(numbers, "train")
            assert others == [first] * len(others)


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
    cluster[2].ask("abort")
    cluster.begin_of([0, 1], [0, 1, 2], seconds=SOON_SECONDS)
    for number in [0, 1]:
        kind, text = cluster[number].failure()
        assert kind == "NotAdmitted" and "still missing: rank 2" in text, text
        cluster[number].tell("sum")
        assert "has no members" in cluster[number].failure()[1]
    with ccl.Communicator(cluster.address) as another:
        assert (another.groups, another.global_world_size) == (1, 1), "nobody is left in any other"
    cluster.form([0, 1, 2])


@on_ccl
def test_an_attempt_of_one_that_dies_in_it_fails_in_time(cluster: Cluster) -> None:
    cluster.form([0, 1, 2])
    cluster.begin_of([1, 2], [0, 1, 2], seconds=SOON_SECONDS)
    cluster.kill(2)
    assert cluster[1].failure()[0] == "NotAdmitted"
    cluster.form([0, 1])


@on_ccl
def test_ranks_do_not_shift_when_a_member_dies_while_all_meet(cluster: Cluster) -> None:
    handles = cluster.ask_all([0, 1, 2], "handle")
    uuid = cluster.uuid()
    for number in [1, 2]:
        cluster[number].tell("reconfigure", uuid, handles)
    cluster[0].tell("die while all meet", uuid, handles)
    for number in [1, 2]:
        assert cluster[number].outcome() in [(number, 3), "PeerLost", "TooFewPeers"]


@on_ccl
def test_lists_that_differ_are_noticed(cluster: Cluster) -> None:
    first, second = cluster.ask_all([0, 1], "handle")
    uuid = cluster.uuid()
    cluster[0].tell("reconfigure", uuid, [first, second], SOON_SECONDS)
    cluster[1].tell("reconfigure", uuid, [second, first], SOON_SECONDS)
    failures = dict(cluster[number].failure() for number in [0, 1])
    assert "with another list of members" in failures["Refused"], "whoever came second"
    assert "still missing: rank" in failures["NotAdmitted"]
    cluster.form([0, 1])


@on_ccl
def test_what_cannot_be_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    cluster[0].tell("sum")
    assert "has no members: call reconfigure" in cluster[0].failure()[1]
    handles = cluster.ask_all([0, 1], "handle")
    uuid = cluster.uuid()
    assert cluster.ask_all([0, 1], "reconfigure", uuid, handles) == [(0, 2), (1, 2)]
    used, missing, twice = cluster[0].ask("refuse", handles, uuid)
    assert f"uuid {uuid} was already used" in used
    assert "is not among the 1 given" in missing and "duplicate handle" in twice
    assert cluster.ask_all([0, 1], "sum") == [3, 3]


@on_ccl
def test_attempts_that_fail_leave_no_thread_behind(cluster: Cluster) -> None:
    cluster.form([0, 1])
    handles = cluster.ask_all([0, 1], "handle")
    assert cluster[0].ask("fail often", cluster.uuid(), handles, 0.05)
    cluster[1].ask("abort")
    cluster.form([0, 1])


@on_ccl
def test_a_forked_child_does_not_take_its_parents_place(cluster: Cluster) -> None:
    alone = [cluster[0].ask("handle")]
    assert cluster[0].ask("fork", cluster.uuid(), alone) == 0
    cluster.form([0])


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
