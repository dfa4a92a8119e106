"""Replicas of torchft, each a process with its own manager: what they train, and where they are killed."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ccl
import ccl.torch
import torch
import torch.distributed as dist
from peers import HANG_SECONDS, Peer, Pipe
from torch.distributed.fsdp import fully_shard
from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo
from torchft.coordination import LighthouseServer
from torchft.local_sgd import DiLoCo, LocalSGD

STEPS = 20
#: Least number of steps after the last replica has joined.
STEPS_TOGETHER = 5
#: Steps that a replica makes with the others before it is killed.
FATAL_STEPS = 3
#: Inner steps per outer step.
SYNC_EVERY = 4
#: Silence after which the lighthouse counts a replica as dead.
SILENCE_MS = 1_000
#: How long replicas wait for one that died while a group forms.
SOON = timedelta(seconds=4)
NEVER = timedelta(seconds=HANG_SECONDS)

PHASES = ["in the quorum", "while the group forms", "before the all-reduce", "in the all-reduce"]
PHASES += ["after the all-reduce", "after the step"]


@dataclass(frozen=True)
class Cluster:
    """Where replicas find each other, and how long they wait."""

    master: str
    lighthouse: str
    backend: str
    timeout: timedelta


@dataclass(frozen=True)
class Place:
    """One process of a replica, and the phase in which it kills itself, if any."""

    replica: int
    phase: str | None = None
    rank: int = 0
    ranks: int = 1
    #: The port of the store that a replica's ranks share, if it has several.
    port: int | None = None


class Replica:
    """One process of a replica."""

    def __init__(self, pipe: Pipe, cluster: Cluster, place: Place, *, use_async_quorum: bool = True) -> None:
        """It gets the weights of the others when it first meets them."""
        self.place = place
        self._pipe = pipe
        #: Replicas in the last step.
        self.world = 0
        #: The last step.
        self.end = STEPS
        #: Steps made before the last replica joined.
        self.alone = 0
        self._batches = 0
        torch.manual_seed(place.replica)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(8, 2048), torch.nn.Tanh(), torch.nn.Linear(2048, 1)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self._store = open_store()
        self.manager = Manager(
            pg=self._watched(make_group(cluster, place)),
            load_state_dict=self._load,
            state_dict=self._save,
            min_replica_size=1,
            use_async_quorum=use_async_quorum,
            timeout=cluster.timeout,
            quorum_timeout=NEVER,
            rank=place.rank,
            world_size=place.ranks,
            store_addr="localhost",
            store_port=place.port or self._store.port,
            lighthouse_addr=cluster.lighthouse,
            replica_id=f"replica{place.replica}",
        )

    def __enter__(self) -> "Replica":
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.shutdown(wait=False)

    def is_over(self) -> bool:
        """Whether both replicas have made the last step together."""
        return self.world == 2 and self.manager.current_step() >= self.end

    def meet(self) -> None:
        """Notes how many replicas are in the step. All that are in it find the same number."""
        world = self.manager.num_participants()
        if world == 1 and self.world == 2:
            self._pipe.say("alone")
        if world == 2 and self.world < 2:
            self.alone = self.manager.current_step()
            self.end = max(STEPS, self.alone + STEPS_TOGETHER)
        self.world = world

    def reach(self, phase: str) -> None:
        """Dies if this is the phase to die in."""
        made = self.manager.current_step() - self.alone
        if phase == self.place.phase and self.world == 2 and made >= FATAL_STEPS:
            os.kill(os.getpid(), signal.SIGKILL)

    def loss(self, model: Any) -> torch.Tensor:
        """The loss on the next data of this process."""
        self._batches += 1
        seed = 1_000_000 * self.place.replica + 10_000 * self.place.rank + self._batches
        source = torch.Generator().manual_seed(seed)
        inputs = torch.randn(16, 8, generator=source)
        return torch.nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True).sin())

    def report(self) -> "Report":
        """The last step, the step at which the last replica joined, and a digest of the weights."""
        weights = torch.cat([shard.reshape(-1) for shard in self._shards()])
        assert weights.isfinite().all()
        digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
        return self.manager.current_step(), self.alone, digest

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _save(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def _shards(self) -> list[torch.Tensor]:
        return [each.detach() for each in self.model.parameters()]

    def _watched(self, group: Any) -> Any:
        """Makes the process die in an operation of the group, if it is to."""
        reconfigure, all_reduce = group.reconfigure, group.allreduce

        def die_in_reconfigure(options: Any) -> Any:
            if self.place.phase == "while the group forms" and len(options.handles) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return reconfigure(options)

        def die_in_all_reduce(*arguments: Any) -> Any:
            work = all_reduce(*arguments)
            self.reach("in the all-reduce")
            return work

        group.reconfigure, group.allreduce = die_in_reconfigure, die_in_all_reduce
        return group


def make_group(cluster: Cluster, place: Place) -> Any:
    if cluster.backend == "gloo":
        return ProcessGroupGloo(timeout=cluster.timeout)
    ccl.torch.use_master(cluster.master)
    if place.port is not None:
        store = dist.TCPStore("localhost", place.port, is_master=False)
        dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.ranks)
        return ccl.torch.reconfigurable_group(cluster.timeout)
    dist.init_process_group(
        "ccl",
        store=dist.HashStore(),
        rank=0,
        world_size=1,
        timeout=cluster.timeout,
        enable_reconfigure=True,
    )
    return dist.group.WORLD


def open_store() -> Any:
    return dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


Report = tuple[int, int, str]


def train_ddp(pipe: Pipe, cluster: Cluster, place: Place) -> Report:
    with Replica(pipe, cluster, place) as replica:
        model = DistributedDataParallel(replica.manager, replica.model)
        optimizer = Optimizer(replica.manager, replica.optimizer)
        while not replica.is_over():
            optimizer.zero_grad()
            replica.reach("in the quorum")
            loss = replica.loss(model)
            replica.meet()
            replica.reach("before the all-reduce")
            loss.backward()
            replica.reach("after the all-reduce")
            optimizer.step()
            replica.reach("after the step")
        return replica.report()


def train_local_sgd(pipe: Pipe, cluster: Cluster, place: Place) -> Report:
    with Replica(pipe, cluster, place) as replica:
        with LocalSGD(replica.manager, replica.model, replica.optimizer, SYNC_EVERY):
            train_locally(replica)
        return replica.report()


def train_diloco(pipe: Pipe, cluster: Cluster, place: Place) -> Report:
    with Replica(pipe, cluster, place, use_async_quorum=False) as replica:
        weights = replica.model.parameters()
        outer = torch.optim.SGD(weights, lr=0.7, momentum=0.9, nesterov=True)
        with DiLoCo(replica.manager, [replica.model], replica.optimizer, outer, SYNC_EVERY):
            train_locally(replica)
        return replica.report()


class Shard(Replica):
    """A rank of a replica that shards the model with FSDP2. No momentum: only weights are healed."""

    def begin(self) -> None:
        parts: list[Any] = [self.model[0], self.model[2], self.model]
        for part in parts:
            fully_shard(part)
            part.set_all_reduce_hook(self._reduce)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)

    def _reduce(self, gradients: torch.Tensor) -> None:
        self.manager.allreduce(gradients).wait()

    def _load(self, state: dict[str, Any]) -> None:
        for shard, weights in zip(self._shards(), state["shards"], strict=True):
            shard.copy_(weights)

    def _save(self) -> dict[str, Any]:
        return {"shards": self._shards()}

    def _shards(self) -> list[torch.Tensor]:
        return [each.detach().to_local() for each in self.model.parameters()]


def train_sharded(pipe: Pipe, cluster: Cluster, place: Place) -> Report:
    # Weights are not sharded during forward passes, so others cannot be healed then.
    with Shard(pipe, cluster, place, use_async_quorum=False) as replica:
        replica.begin()
        optimizer = Optimizer(replica.manager, replica.optimizer)
        while not replica.is_over():
            optimizer.zero_grad()
            replica.loss(replica.model).backward()
            replica.meet()
            optimizer.step()
        return replica.report()


def train_locally(replica: Replica) -> None:
    while not replica.is_over():
        replica.optimizer.zero_grad()
        replica.loss(replica.model).backward()
        replica.optimizer.step()
        replica.meet()


@contextmanager
def lighthouse_of(least: int = 1) -> Iterator[str]:
    """A lighthouse that wants this many replicas in a quorum; yields its address."""
    lighthouse = LighthouseServer(
        bind="[::]:0",
        min_replicas=least,
        join_timeout_ms=10 * SILENCE_MS,
        heartbeat_timeout_ms=SILENCE_MS,
    )
    try:
        yield lighthouse.address()
    finally:
        lighthouse.shutdown()


@contextmanager
def cluster_of(
    backend: str = "ccl", *, least: int = 1, timeout: timedelta = SOON
) -> Iterator[Cluster]:
    """A master and a lighthouse."""
    with lighthouse_of(least) as lighthouse:
        with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
            yield Cluster(master.address, lighthouse, backend, timeout)


@contextmanager
def replicas_of(cluster: Cluster) -> Iterator["Replicas"]:
    replicas = Replicas(cluster)
    try:
        yield replicas
    finally:
        for peer in replicas.peers:
            peer.end()


class Replicas:
    """The processes of a cluster's replicas."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.peers: list[Peer] = []

    def start(self, body: Callable[[Pipe, Cluster, Place], Report], place: Place) -> Peer:
        self.peers.append(Peer(body, self._cluster, place))
        return self.peers[-1]
