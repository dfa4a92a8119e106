"""Subgroups of a group, created by torch's `split_group`."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

#: Creates a group, given its store, this process's rank, the size and the timeout.
Make = Callable[[Any, int, int, timedelta], Any]


class Parts:
    """The subgroups of a group of fixed ranks. Each is a separate peer group."""

    def __init__(self, make: Make, store: Any) -> None:
        self._make = make
        self.store = store

    def make(self, ranks: list[int], rank: int, name: str, timeout: timedelta) -> Any:
        """Creates the subgroup of these ranks, in this order. `rank` is this process's, one of them."""
        store = dist.PrefixStore(f"{name}/", self.store)
        part = self._make(store, ranks.index(rank), len(ranks), timeout)
        part._set_group_name(name)
        return part
