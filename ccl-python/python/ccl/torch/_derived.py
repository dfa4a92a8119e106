"""Operations of torch that are made of others, or that there are not.

``reduce`` costs what ``all_reduce`` does, ``gather`` what ``all_gather`` does, and ``scatter`` what an
``all_reduce`` of the whole list does.
"""

from abc import abstractmethod
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import AllgatherOptions

import ccl
from ccl.torch._overloads import overloaded
from ccl.torch._work import Work


class Derived(dist.ProcessGroup):
    """What a group can do beside the collectives it has."""

    @abstractmethod
    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Work: ...

    @abstractmethod
    def _gather(
        self,
        parts: list[list[torch.Tensor]],
        inputs: list[torch.Tensor],
        result: list[torch.Tensor],
    ) -> Work: ...

    @abstractmethod
    def _reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any
    ) -> Work: ...

    @abstractmethod
    def _scatter(
        self, output: torch.Tensor, parts: list[torch.Tensor] | None, root: int
    ) -> Work: ...

    # Torch has had several names for some of them.

    def allreduce_coalesced(self, tensors: list[torch.Tensor], opts: Any = None) -> Work:
        return self.allreduce(tensors, opts)

    @overloaded(AllgatherOptions, 2, "timeout")
    def allgather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        return self._gather(outputs, inputs, [part for parts in outputs for part in parts])

    def allgather_coalesced(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        by_input = [list(parts) for parts in zip(*outputs, strict=True)]
        return self._gather(by_input, inputs, [part for parts in outputs for part in parts])

    def all_gather_single(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = None
    ) -> Work:
        return self.all_gather_single_coalesced([output], [input], opts)

    def _allgather_base(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> Work:
        return self.all_gather_single_coalesced([output], [input], opts)

    def all_gather_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        size = self.size()
        parts = [list(output.view(-1).tensor_split(size)) for output in outputs]
        return self._gather(parts, [input.reshape(-1) for input in inputs], outputs)

    def allgather_into_tensor_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        return self.all_gather_single_coalesced(outputs, inputs, opts)

    def reduce_scatter_single(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = None
    ) -> Work:
        return self._reduce_scatter([output], [input], opts)

    def _reduce_scatter_base(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = None
    ) -> Work:
        return self._reduce_scatter([output], [input], opts)

    def reduce_scatter_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        return self._reduce_scatter(outputs, inputs, opts)

    def reduce_scatter_tensor_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        return self._reduce_scatter(outputs, inputs, opts)

    @overloaded(dist.ReduceScatterOptions, 2, "op", "timeout")
    def reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any = None
    ) -> Work:
        return self._reduce_scatter(outputs, [torch.stack(parts) for parts in inputs], opts)

    # With one rank that gives or gets.

    @overloaded(dist.ReduceOptions, 1, "root", "op", "timeout")
    def reduce(self, tensors: list[torch.Tensor], opts: Any) -> Work:
        if opts.rootRank == self.rank():
            return self.allreduce(tensors, opts)
        return self.allreduce([tensor.clone() for tensor in tensors], opts)

    @overloaded(dist.GatherOptions, 2, "root", "timeout")
    def gather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any
    ) -> Work:
        if opts.rootRank == self.rank():
            return self.allgather(outputs, inputs)
        unused = [[torch.empty_like(input) for _ in range(self.size())] for input in inputs]
        return self._gather(unused, inputs, [])

    @overloaded(dist.ScatterOptions, 2, "root", "timeout")
    def scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any
    ) -> Work:
        [output] = outputs
        is_root = opts.rootRank == self.rank()
        return self._scatter(output, inputs[0] if is_root else None, opts.rootRank)

    # What there is not.

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> NoReturn:
        _refuse("send")

    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> NoReturn:
        _refuse("recv")

    def recv_anysource(self, tensors: list[torch.Tensor], tag: int) -> NoReturn:
        _refuse("recv")

    def _get_backend(self, device: torch.device) -> NoReturn:
        # Torch tries for several purposes, and knows what to do for all others when there is none.
        _refuse("batch_isend_irecv")

    def alltoall(self, *_arguments: Any, **_options: Any) -> NoReturn:
        _refuse("all_to_all")

    def alltoall_base(self, *_arguments: Any, **_options: Any) -> NoReturn:
        _refuse("all_to_all")

    def all_to_all_single(self, *_arguments: Any, **_options: Any) -> NoReturn:
        _refuse("all_to_all")


def _refuse(what: str) -> NoReturn:
    raise ccl.InvalidUsage(
        f"the backend ccl has no {what}: it has all_reduce, reduce, broadcast, scatter, all_gather, gather, "
        'reduce_scatter and barrier; make a group for the rest by torch.distributed.new_group(backend="gloo")'
    )
