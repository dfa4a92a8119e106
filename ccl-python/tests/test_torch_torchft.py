"""torchft on groups of ccl: replicas in separate processes that are killed and come back."""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe
from test_examples import started_master

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
pytest.importorskip("torchft", reason="torchft is not installed; `make test-torch` says why")
import torch.distributed as dist  # noqa: E402
from torchft.process_group import reconfigure_with_store  # noqa: E402
from torchft_replicas import (  # noqa: E402
    FATAL_STEPS,
    NEVER,
    PHASES,
    SOON,
    STEPS,
    STEPS_TOGETHER,
    Cluster,
    Place,
    cluster_of,
    lighthouse_of,
    open_store,
    replicas_of,
    train_ddp,
    train_diloco,
    train_local_sgd,
    train_sharded,
)

import ccl.torch  # noqa: E402

pytestmark = pytest.mark.torch


def lose_one(body: Callable[..., Any], phase: str) -> None:
    """Kills one of two replicas in this phase, and starts it again."""
    with cluster_of() as cluster, replicas_of(cluster) as replicas:
        survivor = replicas.start(body, Place(0))
        victim = replicas.start(body, Place(1, phase))
        victim.process.join(HANG_SECONDS)
        assert victim.process.exitcode == -signal.SIGKILL
        has_met = phase != "while the group forms"
        if has_met:
            assert survivor.receive() == "alone"
        again = replicas.start(body, Place(1))
        steps, joined, weights = survivor.receive()
        assert (steps, joined, weights) == again.receive(), "it was healed, and both trained alike"
        assert steps == max(STEPS, joined + STEPS_TOGETHER)
        assert joined > FATAL_STEPS or not has_met


@pytest.mark.parametrize("phase", PHASES)
def test_ddp_goes_on_without_a_replica_and_heals_it(phase: str) -> None:
    lose_one(train_ddp, phase)


def test_replicas_wait_for_a_master_that_was_killed(tmp_path: Path) -> None:
    journal = tmp_path / "run.journal"
    with lighthouse_of() as lighthouse, ExitStack() as stack:
        process, address = stack.enter_context(started_master("127.0.0.1:0", journal))
        cluster = Cluster(address, lighthouse, "ccl", SOON)
        replicas = stack.enter_context(replicas_of(cluster))
        survivor = replicas.start(train_ddp, Place(0))
        victim = replicas.start(train_ddp, Place(1, "after the step"))
        victim.process.join(HANG_SECONDS)
        process.kill()
        process.wait()
        again = replicas.start(train_ddp, Place(1))
        stack.enter_context(started_master(address, journal))
        reports = [survivor.receive(), again.receive()]
        if reports[0] == "alone":
            reports[0] = survivor.receive()
        assert reports[0] == reports[1]


@pytest.mark.parametrize("body", [train_local_sgd, train_diloco])
def test_an_outer_step_that_loses_a_replica_is_made_by_the_other(body: Callable[..., Any]) -> None:
    lose_one(body, "in the all-reduce")


@pytest.mark.parametrize("body", [train_ddp, train_local_sgd, train_diloco])
def test_weights_are_those_of_gloo(body: Callable[..., Any]) -> None:
    found = []
    for backend in ["ccl", "gloo"]:
        with cluster_of(backend, least=2, timeout=NEVER) as cluster, replicas_of(cluster) as replicas:
            peers = [replicas.start(body, Place(number)) for number in range(2)]
            found += [peer.receive() for peer in peers]
    assert found == [found[0]] * 4 and found[0][0] == STEPS


def test_replicas_that_shard_reduce_shard_by_shard() -> None:
    with cluster_of(least=2, timeout=NEVER) as cluster, replicas_of(cluster) as replicas:
        stores = [open_store() for _ in range(2)]
        places = [
            Place(number, rank=rank, ranks=2, port=store.port)
            for number, store in enumerate(stores)
            for rank in range(2)
        ]
        peers = [replicas.start(train_sharded, place) for place in places]
        first, second, *others = [peer.receive() for peer in peers]
    assert others == [first, second] and first != second


def resize(pipe: Pipe, address: str, port: int, rank: int) -> list[Any]:
    """Sums of ranks in the groups of torchft's own test of resizing, the last after an abort."""
    ccl.torch.use_master(address)
    options: dict[str, Any] = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("ccl", timeout=NEVER, enable_reconfigure=True, **options)
    group: Any = dist.group.WORLD
    found = []
    for number, members in enumerate([[0, 1, 2], [2, 0], [1, 2, 0], [0, 1, 2]]):
        if rank in members:
            place = (members.index(rank), len(members))
            reconfigure_with_store(group, f"localhost:{port}/resize/{number}", *place, NEVER)
            whole = torch.tensor([rank + 1.0])
            dist.all_reduce(whole)
            found.append((dist.get_rank(), dist.get_world_size(), float(whole)))
        pipe.say(number)
        pipe.wait()
        if number == 2:
            group.abort()
    return found


def test_groups_are_resized_and_recover() -> None:
    store = open_store()
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers: list[Peer] = []
        try:
            peers.extend(Peer(resize, master.address, store.port, rank) for rank in range(3))
            for number in range(4):
                assert [peer.receive() for peer in peers] == [number] * 3
                for peer in peers:
                    peer.pipe.send(None)
            found = [peer.receive() for peer in peers]
        finally:
            for peer in peers:
                peer.end()
    assert found == [
        [(0, 3, 6), (1, 2, 4), (2, 3, 6), (0, 3, 6)],
        [(1, 3, 6), (0, 3, 6), (1, 3, 6)],
        [(2, 3, 6), (0, 2, 4), (1, 3, 6), (2, 3, 6)],
    ]
