"""Torch's operations that are built on others, and those that are not supported.

``reduce`` costs as much as ``all_reduce``, ``gather`` as much as ``all_gather``, and ``scatter`` as much
as an ``all_reduce`` of the whole list. ``all_to_all`` costs as much as an ``all_gather`` of all inputs.
"""

from abc import abstractmethod
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import AllgatherOptions

import ccl
from ccl.torch import _all_to_all, _calls
from ccl.torch._calls import Call
from ccl.torch._overloads import overloaded
from ccl.torch._work import Work


class Derived(dist.ProcessGroup):
    """Operations that a group offers besides its own collectives."""

    @abstractmethod
    def _all_reduce(self, call: Call, tensors: list[torch.Tensor], opts: Any) -> Work: ...

    @abstractmethod
    def _gather(
        self,
        call: Call,
        parts: list[list[torch.Tensor]],
        inputs: list[torch.Tensor],
        result: list[torch.Tensor],
    ) -> Work: ...

    @abstractmethod
    def _all_to_all(
        self,
        call: Call,
        outputs: list[torch.Tensor],
        inputs: list[torch.Tensor],
        result: list[torch.Tensor],
    ) -> Work: ...

    @abstractmethod
    def _reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any
    ) -> Work: ...

    @abstractmethod
    def _scatter(
        self, call: Call, output: torch.Tensor, parts: list[torch.Tensor] | None
    ) -> Work: ...

    # Torch's names for some of these have changed over time.

    @overloaded(dist.AllreduceOptions, 1, "op", "timeout")
    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Work:
        return self._all_reduce(_calls.named("all_reduce", opts), tensors, opts)

    def allreduce_coalesced(self, tensors: list[torch.Tensor], opts: Any = None) -> Work:
        return self.allreduce(tensors, opts)

    @overloaded(AllgatherOptions, 2, "timeout")
    def allgather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        _calls.check_shares("all_gather", outputs, inputs, self.size())
        return self._all_gather(opts, outputs, inputs)

    def allgather_coalesced(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        _calls.check_count("all_gather", len(outputs), self.size())
        for parts in outputs:
            _calls.check_count("all_gather", len(parts), len(inputs))
        by_input = [list(parts) for parts in zip(*outputs, strict=True)]
        return self.allgather(by_input, inputs, opts)

    def _all_gather(
        self, opts: Any, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor]
    ) -> Work:
        call = _calls.named(f"all_gather of {_calls.types(inputs)}", opts)
        return self._gather(call, outputs, inputs, [part for parts in outputs for part in parts])

    def all_gather_single(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = None
    ) -> Work:
        return self.all_gather_single_coalesced([output], [input], opts)

    def _allgather_base(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> Work:
        return self.all_gather_single_coalesced([output], [input], opts)

    def all_gather_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        what, size = "all_gather_into_tensor", self.size()
        _calls.check_some(what, inputs)
        _calls.check_count(what, len(outputs), len(inputs))
        for output, input in zip(outputs, inputs, strict=True):
            _calls.check_alike(what, output, input, size)
        call = _calls.named(f"all_gather of {_calls.types(inputs)}", opts)
        parts = [list(output.view(-1).tensor_split(size)) for output in outputs]
        return self._gather(call, parts, [input.reshape(-1) for input in inputs], outputs)

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
        _calls.check_shares("reduce_scatter", inputs, outputs, self.size())
        return self._reduce_scatter(outputs, [torch.stack(parts) for parts in inputs], opts)

    # Collectives with a root rank.

    @overloaded(dist.ReduceOptions, 1, "root", "op", "timeout")
    def reduce(self, tensors: list[torch.Tensor], opts: Any) -> Work:
        _calls.check_root("reduce", opts.rootRank, self.size())
        call = _calls.named(f"reduce to rank {opts.rootRank}", opts, opts.rootRank)
        if opts.rootRank == self.rank():
            return self._all_reduce(call, tensors, opts)
        return self._all_reduce(call, [tensor.clone() for tensor in tensors], opts)

    @overloaded(dist.GatherOptions, 2, "root", "timeout")
    def gather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any
    ) -> Work:
        _calls.check_root("gather", opts.rootRank, self.size())
        _calls.check_some("gather", inputs)
        name = f"gather of {_calls.types(inputs)} to rank {opts.rootRank}"
        call = _calls.named(name, opts, opts.rootRank)
        if opts.rootRank == self.rank():
            _calls.check_shares("gather", outputs, inputs, self.size())
            return self._gather(call, outputs, inputs, [part for parts in outputs for part in parts])
        unused = [[torch.empty_like(input) for _ in range(self.size())] for input in inputs]
        return self._gather(call, unused, inputs, [])

    @overloaded(dist.ScatterOptions, 2, "root", "timeout")
    def scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any
    ) -> Work:
        output = _calls.only("scatter", outputs)
        _calls.check_root("scatter", opts.rootRank, self.size())
        name = f"scatter of {_calls.types(outputs)} from rank {opts.rootRank}"
        call = _calls.named(name, opts, opts.rootRank)
        if opts.rootRank != self.rank():
            return self._scatter(call, output, None)
        _calls.check_shares("scatter", inputs, outputs, self.size())
        return self._scatter(call, output, inputs[0])

    # From every rank to every rank.

    @overloaded(dist.AllToAllOptions, 2, "timeout")
    def alltoall(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Work:
        what, size = "all_to_all", self.size()
        for tensors in (outputs, inputs):
            _calls.check_count(what, len(tensors), size)
        return self._exchange(opts, outputs, inputs, outputs)

    def all_to_all_single(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_split_sizes: list[int],
        input_split_sizes: list[int],
        opts: Any = None,
    ) -> Work:
        what, size = "all_to_all_single", self.size()
        outputs = _all_to_all.split(what, output, output_split_sizes, size)
        inputs = _all_to_all.split(what, input, input_split_sizes, size)
        return self._exchange(opts, outputs, inputs, [output])

    def alltoall_base(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_split_sizes: list[int],
        input_split_sizes: list[int],
        opts: Any = None,
    ) -> Work:
        return self.all_to_all_single(output, input, output_split_sizes, input_split_sizes, opts)

    def _exchange(
        self,
        opts: Any,
        outputs: list[torch.Tensor],
        inputs: list[torch.Tensor],
        result: list[torch.Tensor],
    ) -> Work:
        for tensor in [*outputs, *inputs]:
            _calls.check_type("all_to_all", tensor, inputs[0])
        call = _calls.named(f"all_to_all of {_calls.types(inputs)}", opts)
        return self._all_to_all(call, outputs, inputs, result)

    # Not supported.

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> NoReturn:
        _refuse("send")

    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> NoReturn:
        _refuse("recv")

    def recv_anysource(self, tensors: list[torch.Tensor], tag: int) -> NoReturn:
        _refuse("recv")

    # Torch looks for much on the backend of a device.

    def _get_backend(self, device: torch.device) -> Any:
        return self

    supports_coalescing = False
    supports_shrinking = False
    _supports_time_estimate = False

    def supports_tensor_alloc(self, device: torch.device) -> bool:
        return False

    # Torch calls these on a backend that can be split; here there is nothing to do.

    def eager_connect_single_device(self, device: torch.device) -> None:
        pass

    def perform_nocolor_split(self, device: torch.device) -> None:
        pass


def _refuse(what: str) -> NoReturn:
    raise ccl.InvalidUsage(
        f"the backend ccl has no {what}: it has all_reduce, reduce, broadcast, scatter, all_gather, gather, "
        "reduce_scatter, all_to_all and barrier; for others create a group with "
        'torch.distributed.new_group(backend="gloo")'
    )
