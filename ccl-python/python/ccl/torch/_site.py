"""Sites that each shard one model with FSDP2, and reduce with each other over unreliable links."""

import secrets
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, Unpack

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

import ccl
from ccl.torch._group import ATTEMPTS, FIRST_TAG
from ccl.types import Op, Options, SyncOptions

#: Below the tags of groups and of `share`.
MEET_TAG = FIRST_TAG - 2
WHY_TAG = FIRST_TAG - 3
#: How long the master may take to detect the loss of a process of this site.
EVICTION_SECONDS = 10.0

T = TypeVar("T")


class Site:
    """One process of a site: the processes of a torch group, which shard one model.

    Shard i of all sites forms one peer group, and the processes of a site form one unit: they join, leave
    and fail together. All processes of all sites must call the same methods in the same order. An error
    in one process of a site is raised in all of them.

    After a ``ccl.SessionOver``, or when torch's group is broken, restart the processes of the site. Give
    torch's group a ``timeout``: only that ends the wait for a process of this site that hangs.
    """

    def __init__(
        self,
        master: str,
        *,
        group: dist.ProcessGroup | None = None,
        initial_world_size: int = 1,
        **settings: Any,
    ) -> None:
        """Blocks until the site is admitted. ``settings`` are those of ``ccl.Communicator``, without
        ``group``, ``unit`` and ``unit_size``.

        ``group`` is torch's group of this site, by default torch's whole world. The run starts with
        ``initial_world_size`` sites. The next call at all sites should be ``sync``.
        """
        self._group = group
        self._shards = dist.get_world_size(group)
        #: The number of this process in its site, and of its peer group.
        self.shard = dist.get_rank(group)
        #: The unique number of this site. A site that restarts gets a new one.
        self.id: int = _draw_number(group)
        #: The communicator of this shard's peer group. Use the site's ``update_topology``, not its own.
        self.communicator = ccl.Communicator(
            master,
            **settings,
            group=self.shard,
            unit=self.id,
            unit_size=self._shards,
            initial_world_size=initial_world_size,
        )
        self._site_of: dict[int, int] = {}
        try:
            self._together(self._meet)
        except BaseException:
            self.communicator.close()
            raise

    @property
    def sites(self) -> frozenset[int]:
        """The numbers of the sites in the run, as of the newest result."""
        return self._sites_of(self.communicator.view.members)

    @property
    def world_size(self) -> int:
        """The number of sites in the run."""
        return len(self.sites)

    def all_reduce(
        self, tensors: Iterable[torch.Tensor], op: Op = "avg", **options: Unpack[Options]
    ) -> frozenset[int]:
        """Reduces tensors, and the local shards of DTensors, over the sites, in place. Returns the sites
        that took part.

        These are the same for all shards: if a site is lost when only some of its shards have taken
        part, all sites repeat the operation without it. This needs as much memory again as the
        tensors. ``attempts`` is 64 by default. After an error the tensors are unchanged.
        """
        shards = [_local(tensor) for tensor in tensors]
        with torch.no_grad():
            while True:
                results = [shard.clone(memory_format=torch.contiguous_format) for shard in shards]
                sites = self._together(lambda: self._reduce(results, op, options))
                # All survivors got the same outcome for each peer group, so all sites decide alike.
                if len(set(sites)) == 1:
                    break
            for shard, result in zip(shards, results, strict=True):
                shard.copy_(result)
        return sites[0]

    def sync(self, state: ccl.SharedState, **options: Unpack[SyncOptions]) -> ccl.SyncInfo:
        """Makes each shard equal on all sites, with the same revision in all shards.

        ``state`` holds the DTensors, or their local shards; see ``Communicator.sync``.
        """
        infos: list[ccl.SyncInfo] = []

        def sync() -> int:
            infos.append(self.communicator.sync(state, **options))
            return infos[0].revision

        revisions = self._together(sync)
        if len(set(revisions)) > 1:
            raise ccl.StateMismatch(
                f"the shards of the site got different revisions, {revisions}, so no revision of the whole "
                "model exists: load checkpoints of one revision at all sites, and start a new run",
                epoch=self.communicator.epoch,
            )
        return infos[0]

    def update_topology(self) -> frozenset[int]:
        """The safe point at which whole sites enter the run. Returns the sites that entered.

        If there are any, the next call of all sites, old and new, should be ``sync``.
        """
        return frozenset.intersection(*self._together(self._admit))

    def explain(self, error: RuntimeError) -> RuntimeError:
        """Returns why torch's group broke, if the run knows, otherwise ``error`` itself.

        Torch only reports a broken connection. When the master evicts this peer, it says which
        process was lost. Blocks for at most 10 s.
        """
        try:
            self.communicator.barrier(tag=WHY_TAG, deadline=EVICTION_SECONDS)
        except ccl.SessionOver as over:
            return over
        except ccl.Error:
            pass
        return error

    def close(self) -> None:
        """Waits until all processes of the site have called this, then leaves the run."""
        try:
            self._together(lambda: None)
        finally:
            self.communicator.close()

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> Literal[False]:
        if kind is None:
            self.close()
        else:
            self.communicator.close()
        return False

    def _reduce(self, results: list[torch.Tensor], op: Op, options: Options) -> frozenset[int]:
        given: Options = {"attempts": ATTEMPTS, **options}
        return self._sites_of(self.communicator.all_reduce_many(results, op, **given).contributors)

    def _admit(self) -> frozenset[int]:
        before = set(self.communicator.view.members)
        joined = set(self.communicator.update_topology().members) - before
        if joined:
            self._meet()
        # A peer that was lost since has not announced its site.
        return self._sites_of(joined & self._site_of.keys())

    def _meet(self) -> None:
        """Members and newcomers exchange the numbers of their sites."""
        mine = torch.tensor([self.id], device="cpu")
        while True:
            told = torch.zeros(self.communicator.world_size, dtype=mine.dtype, device="cpu")
            try:
                outcome = self.communicator.all_gather(mine, told, tag=MEET_TAG)
            except (ccl.PeerLost, ccl.WorldChanged):
                continue
            self._site_of = dict(zip(outcome.contributors, told.tolist(), strict=True))
            return

    def _sites_of(self, peers: Iterable[int]) -> frozenset[int]:
        try:
            return frozenset(self._site_of[peer] for peer in peers)
        except KeyError as peer:
            raise ccl.InvalidUsage(
                f"peer {peer} was admitted by the communicator's update_topology; call the site's instead"
            ) from None

    def _together(self, body: Callable[[], T]) -> list[T]:
        """What ``body`` returns in each process of the site. If it raises in one, all raise that error."""
        error: ccl.Error | None = None
        value: Any = None
        try:
            value = body()
        except ccl.SessionOver:
            raise  # The site has ended; its other processes learn it from the master.
        except ccl.Error as raised:
            error = raised
        told = self._gather((error, value))
        if error is not None:
            raise error
        for of_mate, _ in told:
            if of_mate is not None:
                raise of_mate
        return [value for _, value in told]

    def _gather(self, value: T) -> list[T]:
        told: list[Any] = [None] * self._shards
        try:
            dist.all_gather_object(told, value, group=self._group)
        except RuntimeError as error:
            raise self.explain(error) from error
        return told


def _draw_number(group: dist.ProcessGroup | None) -> int:
    numbers = [0] * dist.get_world_size(group)
    dist.all_gather_object(numbers, secrets.randbits(62), group=group)
    return numbers[0]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or the local shard of a DTensor; shares its memory."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()
