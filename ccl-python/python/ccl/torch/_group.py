"""A process group whose collectives run on a ``ccl.Communicator``.

A sum stays a plain sum while all of torch's ranks take part. When some are lost, a sum of
floating-point numbers is scaled by ``torch's world size / contributors``: DDP divides by torch's world
size before it sums, so the scaled gradients remain averages over the contributors.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import ccl
from ccl.torch import _calls
from ccl.torch._all_to_all import AllToAll, as_bytes, as_tensor
from ccl.torch._calls import Call
from ccl.torch._derived import Derived
from ccl.torch._monitored import MonitoredBarriers
from ccl.torch._order import LANES, Counts, Spans
from ccl.torch._overloads import overloaded
from ccl.torch._parts import Parts
from ccl.torch._work import Tensors, Together, Work
from ccl.types import Op

#: Lower tags are left for the application's own use of the communicator.
FIRST_TAG = 1 << 32
#: Each lost peer costs one attempt. A run that loses more peers in one call has bigger problems.
ATTEMPTS = 64

_OPS: dict[Any, Op] = {
    dist.ReduceOp.SUM: "sum",
    dist.ReduceOp.AVG: "avg",
    dist.ReduceOp.PRODUCT: "prod",
    dist.ReduceOp.MIN: "min",
    dist.ReduceOp.MAX: "max",
}


class Group(Derived):
    """One process group of torch."""

    def __init__(
        self,
        communicator: ccl.Communicator | None,
        rank: int,
        size: int,
        ranks: dict[int, int] | None,
        index: int,
        timeout: timedelta,
    ) -> None:
        """``ranks`` maps peers to torch's ranks; ``None`` in an elastic run."""
        super().__init__(rank, size)
        self._communicator = communicator
        self._ranks = ranks
        self._size = size
        self._rank = rank
        self._timeout = timeout
        self._is_first = index == 0
        self._first_tag = FIRST_TAG + index * LANES
        self._counts = Counts()
        #: Operations posted between `_start_coalescing` and `_end_coalescing`.
        self._together: list[Work] | None = None
        self._name = ""
        self._is_retired = False
        #: An elastic run has no store that the ranks share.
        self.monitored_barriers: MonitoredBarriers | None = None
        #: Only fixed ranks can be split: others come and go, or change.
        self.parts: Parts | None = None
        self.is_over = False

    @property
    def communicator(self) -> ccl.Communicator:
        """The communicator that runs this group's collectives."""
        if self._communicator is None:
            raise ccl.InvalidUsage("the group has no members yet: call reconfigure")
        return self._communicator

    # Properties that torch queries.

    supports_reconfigure = False

    def getBackendName(self) -> str:
        return "ccl"

    def name(self) -> str:
        return "ccl"

    @property
    def _device_types(self) -> list[torch.device]:
        kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        return [torch.device(kind) for kind in kinds]

    @property
    def group_name(self) -> str:
        return self._name

    def _set_group_name(self, name: str) -> None:
        self._name = name

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout = timeout

    def get_group_store(self) -> Any:
        return None if self.parts is None else self.parts.store

    @property
    def supports_splitting(self) -> bool:
        return self.parts is not None

    def split_group(
        self,
        ranks: list[int],
        timeout: timedelta | None = None,
        opts: Any = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: list[torch.device] | None = None,
    ) -> Any:
        if self.parts is None:
            raise ccl.InvalidUsage("only a group of fixed ranks can be split: use new_group")
        if self._rank not in ranks:
            return None
        part = self.parts.make(ranks, self._rank, group_name or "", timeout or self._timeout)
        part._set_group_desc(group_desc or "undefined")
        return part

    @property
    def is_elastic(self) -> bool:
        """Whether this is an elastic run, in which torch sees a world of one."""
        return self._ranks is None

    def retire(self) -> None:
        """Marks the group as outdated: newcomers do not have it."""
        self._is_retired = True

    def shutdown(self) -> None:
        self.is_over = True
        self._counts.errors.close()
        # All groups of an elastic run share the first group's communicator.
        if self._is_first:
            self.communicator.close()

    def abort(self) -> None:
        self.shutdown()

    def restart_streams(self) -> None:
        """Restarts the numbering of operations, as for newcomers. All members do so at the same point."""
        self._counts.wait_for_end()
        self._counts.restart()

    # Collectives. Torch calls them in the same order on all ranks.

    def _all_reduce(self, call: Call, tensors: list[torch.Tensor], opts: Any) -> Work:
        _calls.check_some(call.name, tensors)
        reduce_op = dist.ReduceOp.SUM if opts is None else getattr(opts, "reduceOp", opts)
        factor = _premultiplied(reduce_op)
        op: Op = "sum" if factor is not None else _op(reduce_op)
        if self._ranks is None and op == "sum" and _are_floats(tensors):
            op = "avg"  # In torch's world of one, the mean and the sum are the same.
        op = _of_flags(op, tensors)
        _check_writable(tensors)
        sends: list[torch.Tensor] = []

        def start(lane: int) -> ccl.Handle:
            sends[:] = [_contiguous(tensor) for tensor in tensors]
            if factor is not None:
                sends[:] = [send * factor for send in sends]
            return self.communicator.all_reduce_many_async(sends, op, **self._options(call, lane))

        def finish(outcome: ccl.Outcome) -> None:
            if op == "sum" and self._ranks is not None and outcome.world_size != self._size:
                for send in sends:
                    if send.is_floating_point():
                        send.mul_(self._size / outcome.world_size)
            _copy_back(sends, tensors)

        return self._post(Tensors(tensors, writes=tensors), start, finish)

    @overloaded(dist.BroadcastOptions, 1, "root", "timeout")
    def broadcast(self, tensors: list[torch.Tensor], opts: Any = None) -> Work:
        tensor = _calls.only("broadcast", tensors)
        source = 0 if opts is None else getattr(opts, "rootRank", opts)
        _calls.check_root("broadcast", source, self._size)
        _check_writable([tensor])
        return self._tell(
            _calls.named(f"broadcast of {_calls.types(tensors)} from rank {source}", opts, source),
            lambda: as_bytes(_contiguous(tensor)),
            lambda told: _copy_back([told], [tensor]),
            Tensors([tensor], writes=[tensor]),
        )

    def _tell(
        self,
        call: Call,
        give: Callable[[], torch.Tensor],
        take: Callable[[torch.Tensor], object],
        tensors: Tensors,
    ) -> Work:
        """Broadcasts the source's bytes, as a sum to which all other ranks contribute zeros.

        The library's own broadcast names its root by rank, and a loss changes the ranks. In an elastic
        run the source is the oldest member; if it dies, all members retry with the next oldest.
        """

        def start(lane: int) -> ccl.Handle:
            is_source = self._is_source(call.root)
            told = give() if is_source else torch.zeros_like(give())
            buffers[:] = [told, torch.full((1,), is_source, dtype=torch.uint8)]
            return self.communicator.all_reduce_many_async(buffers, **self._options(call, lane))

        def finish(outcome: ccl.Outcome) -> bool:
            told, count = buffers
            if int(count) == 0 and self._ranks is None:
                return False
            if int(count) == 0:
                raise ccl.WorldChanged(
                    f"rank {call.root}, the source of the broadcast, was lost. DDP broadcasts the buffers of "
                    "rank 0 in each forward pass, unless it is created with broadcast_buffers=False",
                    world_size=outcome.world_size,
                )
            take(told)
            return True

        buffers: list[torch.Tensor] = []
        return self._post(tensors, start, finish)

    def _is_source(self, source: int) -> bool:
        if self._ranks is None:
            return self.communicator.rank == 0
        return self._ranks[self.communicator.peer] == source

    def _gather(
        self,
        call: Call,
        parts: list[list[torch.Tensor]],
        inputs: list[torch.Tensor],
        result: list[torch.Tensor],
    ) -> Work:
        """``parts`` holds, for each input, the destination of each rank's data."""
        _check_writable(result)

        def take_own() -> None:
            for [part], own in zip(parts, inputs, strict=True):
                part.detach().copy_(own.view(part.shape))

        def start(lane: int) -> ccl.Handle:
            order[:] = self._order(self._size)
            sends[:] = [as_bytes(own.contiguous()) for own in inputs]
            send = sends[0] if len(sends) == 1 else torch.cat(sends)
            gathered[:] = [torch.empty(self._size * send.numel(), dtype=torch.uint8)]
            options = self._options(call, lane)
            return self.communicator.all_gather_async(send, gathered[0], **options)

        def finish(_outcome: ccl.Outcome) -> None:
            if gathered[0].numel() == 0:
                return
            shares = [own for share in gathered[0].chunk(self._size) for own in _split(share, sends)]
            for place, share in enumerate(shares):
                part = parts[place % len(sends)][order[place // len(sends)]]
                part.detach().copy_(as_tensor(share, part))

        order: list[int] = []
        sends: list[torch.Tensor] = []
        gathered: list[torch.Tensor] = []
        tensors = Tensors(result, reads=inputs, writes=result)
        if self._ranks is None:
            return self._do(take_own, tensors)
        return self._post(tensors, start, finish)

    def _reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any
    ) -> Work:
        reduce_op = dist.ReduceOp.SUM if opts is None else getattr(opts, "reduceOp", opts)
        factor = _premultiplied(reduce_op)
        op: Op = "sum" if factor is not None else _op(reduce_op)
        call = _calls.named("reduce_scatter", opts)
        _calls.check_some(call.name, outputs)
        _calls.check_count(call.name, len(inputs), len(outputs))
        for output, input in zip(outputs, inputs, strict=True):
            _calls.check_alike(call.name, input, output, self._size)
        if len({tensor.dtype for tensor in outputs}) != 1:
            raise ccl.InvalidArgument("reduce_scatter cannot mix element types: call it once for each type")
        _check_writable(outputs)

        def start(lane: int) -> ccl.Handle:
            scaled = inputs if factor is None else [input * factor for input in inputs]
            options = self._options(call, lane)
            if self._ranks is None:
                # Torch sees one share, its own; it is reduced over all members.
                receives[:] = [share.detach().clone().contiguous() for share in scaled]
                averaged: Op = "avg" if op == "sum" and _are_floats(receives) else op
                return self.communicator.all_reduce_many_async(receives, averaged, **options)
            order = self._order(self._size)
            send = _by_rank(scaled, order)
            receives[:] = [output.detach() for output in outputs]
            receive = receives[0].view(-1) if _can_receive(outputs, inputs) else None
            if receive is None:
                receive = send.new_empty(sum(output.numel() for output in outputs))
                receives[:] = _split(receive, outputs)
            return self.communicator.reduce_scatter_async(send, receive, op, **options)

        def finish(_outcome: ccl.Outcome) -> None:
            _copy_back(receives, outputs)

        receives: list[torch.Tensor] = []
        tensors = Tensors(outputs, reads=inputs, writes=outputs)
        return self._post(tensors, start, finish)

    def _scatter(
        self, call: Call, output: torch.Tensor, parts: list[torch.Tensor] | None
    ) -> Work:
        _check_writable([output])

        def take_own() -> None:
            assert parts is not None
            output.detach().copy_(parts[0])

        def give() -> torch.Tensor:
            if parts is None:
                return torch.empty(self._size * output.nbytes, dtype=torch.uint8)
            return torch.cat([as_bytes(part.contiguous()) for part in parts])

        def take(told: torch.Tensor) -> None:
            output.detach().copy_(as_tensor(told[begin : begin + output.nbytes], output))

        begin = self._rank * output.nbytes
        tensors = Tensors([output], reads=parts or [], writes=[output])
        if self._ranks is None:
            return self._do(take_own, tensors)
        return self._tell(call, give, take, tensors)

    def _all_to_all(
        self,
        call: Call,
        outputs: list[torch.Tensor],
        inputs: list[torch.Tensor],
        result: list[torch.Tensor],
    ) -> Work:
        _check_writable(result)
        exchange = AllToAll(outputs, inputs, self._rank)
        tensors = Tensors(result, reads=inputs, writes=result)
        if self._ranks is None:
            return self._do(lambda: _copy_back(inputs, outputs), tensors)

        def start(lane: int) -> ccl.Handle:
            order, options = self._order(self._size), self._options(call, lane)
            return exchange.start(self.communicator, order, options)

        return self._post(tensors, start, lambda _outcome: exchange.finish())

    @overloaded(dist.BarrierOptions, 0, "timeout")
    def barrier(self, opts: Any = None) -> Work:
        token = torch.zeros(1, dtype=torch.uint8)
        call = _calls.named("barrier", opts)
        return self._post(
            Tensors([token]),
            lambda lane: self.communicator.all_reduce_async(token, **self._options(call, lane)),
        )

    def monitored_barrier(
        self, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> None:
        """A barrier whose error names the ranks that do not reach it in time."""
        if self.monitored_barriers is None:
            raise ccl.InvalidUsage(
                "an elastic run has no monitored_barrier: update_topology waits for all members and names "
                "those that have not called it"
            )
        self.monitored_barriers.wait(self._timeout if timeout is None else timeout, wait_all_ranks)

    def _start_coalescing(self, device: torch.device) -> None:
        self._together = []

    def _end_coalescing(self, device: torch.device) -> Together:
        works, self._together = self._together or [], None
        return Together(works)

    # Running operations.

    def _post(
        self,
        tensors: Tensors,
        start: Callable[[int], ccl.Handle | None],
        finish: Callable[[Any], object] | None = None,
    ) -> Work:
        if self._is_retired:
            raise ccl.InvalidUsage(
                "this group was created before newcomers joined, and they do not have it: after update_topology "
                "has admitted newcomers, all members must create it again with new_group"
            )
        work = Work(self._counts, tensors, start, finish)
        if self._together is not None:
            self._together.append(work)
        return work

    def _do(self, take_own: Callable[[], None], tensors: Tensors) -> Work:
        """Runs a local operation at its place in the order of operations."""
        return self._post(tensors, lambda _lane: None, lambda _outcome: take_own())

    def _options(self, call: Call, lane: int) -> dict[str, Any]:
        return {
            "tag": self._first_tag + lane,
            "deadline": call.timeout or self._timeout,
            "attempts": ATTEMPTS,
            "caller": call.name,
        }

    def _order(self, size: int) -> list[int]:
        """Torch's ranks in the communicator's order. Raises if a rank is lost."""
        assert self._ranks is not None
        order = [self._ranks[peer] for peer in self.communicator.view.members]
        if len(order) != size:
            raise ccl.WorldChanged(
                f"{size - len(order)} of {size} ranks are lost: only all_reduce, reduce, broadcast, scatter and "
                "barrier can run without them",
                world_size=len(order),
            )
        return order


def _op(reduce_op: Any) -> Op:
    for known, name in _OPS.items():
        if reduce_op == known:
            return name
    others = [name for name in ("BAND", "BOR", "BXOR") if reduce_op == getattr(dist.ReduceOp, name)]
    raise ccl.InvalidArgument(
        f"the backend ccl has no ReduceOp {'.'.join(others)}; it has {', '.join(_OPS.values())}"
    )


def _of_flags(op: Op, tensors: list[torch.Tensor]) -> Op:
    """Maps operators on bool tensors, which move as bytes: a sum means any, a product means all."""
    if not any(tensor.dtype == torch.bool for tensor in tensors):
        return op
    if op == "avg" or not all(tensor.dtype == torch.bool for tensor in tensors):
        raise ccl.InvalidArgument("bool tensors have no average, and cannot be reduced together with numbers")
    return {"sum": "max", "prod": "min"}.get(op, op)  # type: ignore[return-value]


def _premultiplied(reduce_op: Any) -> float | None:
    """The factor of a PREMUL_SUM."""
    if reduce_op != dist.ReduceOp.PREMUL_SUM:
        return None
    _kind, state = reduce_op.__getstate__()
    return float(state)


def _are_floats(tensors: list[torch.Tensor]) -> bool:
    return all(tensor.is_floating_point() for tensor in tensors)


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if the library can use it in place, otherwise a copy that is copied back."""
    if tensor.dtype == torch.bool:
        tensor = tensor.view(torch.uint8)
    return tensor.detach().contiguous()


def _can_receive(outputs: list[torch.Tensor], inputs: list[torch.Tensor]) -> bool:
    """Whether the library can write the result in place: one plain output that overlaps no input."""
    [first, *others] = outputs
    is_plain = first.dtype != torch.bool and first.is_contiguous()
    return is_plain and not others and not Spans(inputs, []).conflicts(Spans([], outputs))


def _check_writable(tensors: Iterable[torch.Tensor]) -> None:
    """Refuses, before anything is sent, tensors that cannot hold a result."""
    for tensor in tensors:
        if tensor.layout != torch.strided:
            raise ccl.InvalidArgument(f"a tensor has layout {tensor.layout}: pass tensor.to_dense()")
        shape, steps = tensor.shape, tensor.stride()
        if any(step == 0 and size > 1 for size, step in zip(shape, steps, strict=True)):
            raise ccl.InvalidArgument(
                f"a tensor of shape {tuple(shape)} is expanded: several of its elements share one place "
                "in memory, so no result can be written to it; pass tensor.contiguous(), and use that copy"
            )


def _split(flat: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(flat.split([tensor.numel() for tensor in like]))


def _by_rank(inputs: list[torch.Tensor], order: list[int]) -> torch.Tensor:
    """Concatenates the shares of all inputs, first those for the first member, and so on."""
    flats = [input.reshape(-1) for input in inputs]
    if len(flats) == 1 and order == sorted(order):
        return flats[0].contiguous()
    shares = [flat.tensor_split(len(order)) for flat in flats]
    return torch.cat([share[rank] for rank in order for share in shares])


def _copy_back(used: list[torch.Tensor], tensors: list[torch.Tensor]) -> None:
    for source, tensor in zip(used, tensors, strict=True):
        if source.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(as_tensor(source, tensor))
