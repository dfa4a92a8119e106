"""An all-to-all built on two all-gathers: each rank receives everything and keeps its own part.

The first all-gather exchanges how many bytes each rank sends and expects, so that all ranks allocate
the right sizes, and all raise the same error if sizes do not match. For n ranks this moves n times as
many bytes as a direct all-to-all.
"""

from collections.abc import Sequence
from typing import Any

import torch

import ccl
from ccl.torch import _calls


class AllToAll:
    """One all-to-all on one rank. Tensors are in the order of their source and target ranks."""

    def __init__(
        self, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], rank: int
    ) -> None:
        self._outputs = outputs
        self._inputs = inputs
        self._rank = rank
        #: By rank: bytes sent to each rank, and bytes expected from each.
        self._counts: torch.Tensor | None = None
        self._gathered = torch.empty(0)
        self._order: list[int] = []

    def start(
        self, communicator: ccl.Communicator, order: list[int], options: dict[str, Any]
    ) -> ccl.Handle:
        """Starts the first or the second all-gather. `order` lists the ranks in the order of members."""
        self._order = order
        send = self._own_counts() if self._counts is None else self._own_bytes(self._counts)
        self._gathered = torch.empty(len(order) * send.numel(), dtype=send.dtype)
        return communicator.all_gather_async(send, self._gathered, **options)

    def finish(self) -> bool:
        """Returns whether this was the second all-gather; if so, takes the result."""
        shares = list(self._gathered.chunk(len(self._order))) if self._gathered.numel() else []
        by_rank = dict(zip(self._order, shares, strict=False))
        if self._counts is None:
            size = len(self._order)
            self._counts = torch.stack([by_rank[rank] for rank in range(size)]).view(size, 2, size)
            _check(self._counts)
            return False
        for source, share in by_rank.items():
            given = self._counts[source, 0]
            begin = int(given[: self._rank].sum())
            output = self._outputs[source]
            output.detach().copy_(as_tensor(share[begin : begin + output.nbytes], output))
        return True

    def _own_counts(self) -> torch.Tensor:
        counts = [tensor.nbytes for tensor in [*self._inputs, *self._outputs]]
        return torch.tensor(counts, dtype=torch.int64)

    def _own_bytes(self, counts: torch.Tensor) -> torch.Tensor:
        most = int(counts[:, 0].sum(dim=1).max())
        parts = [as_bytes(tensor) for tensor in self._inputs]
        own = torch.cat(parts)
        return torch.cat([own, own.new_zeros(most - own.numel())])


def split(what: str, tensor: torch.Tensor, sizes: Sequence[int], size: int) -> list[torch.Tensor]:
    """Splits a tensor along its first dimension, by these lengths or equally."""
    length = tensor.shape[0] if tensor.dim() else 1
    if not sizes and length % size != 0:
        raise ccl.InvalidArgument(
            f"{what}: a tensor of length {length} cannot be split equally among {size} ranks: pass "
            "split sizes"
        )
    if sizes:
        _calls.check_count(what, len(sizes), size)
    if sizes and (min(sizes) < 0 or sum(sizes) != length):
        raise ccl.InvalidArgument(
            f"{what}: the split sizes {list(sizes)} add up to {sum(sizes)}, but the tensor has length "
            f"{length}"
        )
    whole = tensor if tensor.dim() else tensor.view(1)
    return list(whole.split(list(sizes) or [length // size] * size))


def as_tensor(share: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Views bytes as elements of the given type."""
    if share.storage_offset() % part.element_size() != 0:
        share = share.clone()  # Torch requires alignment.
    return share.view(part.dtype).view(part.shape)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Views a tensor as bytes, so that a collective without a reduction accepts every type."""
    return tensor.detach().reshape(-1).view(torch.uint8)


def _check(counts: torch.Tensor) -> None:
    """Checks that sizes match. All ranks see the same sizes, so all raise the same error."""
    given, expected = counts[:, 0], counts[:, 1].T
    wrong = (given != expected).nonzero().tolist()
    if wrong:
        source, target = wrong[0]
        raise ccl.InvalidArgument(
            f"all_to_all: rank {source} sends {int(given[source, target])} bytes to rank {target}, "
            f"which expects {int(expected[source, target])}"
        )
