"""Groups of some ranks of a group, made by torch's `split_group`."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

#: Makes the group of a rank among so many that share a store.
Make = Callable[[Any, int, int, timedelta], Any]


class Parts:
    """Those of one group of fixed ranks. Each is a peer group of its own."""

    def __init__(self, make: Make, store: Any) -> None:
        self._make = make
        self.store = store

    def make(self, ranks: list[int], rank: int, name: str, timeout: timedelta) -> Any:
        """That of these ranks, in this order, at one of them."""
        store = dist.PrefixStore(f"{name}/", self.store)
        part = self._make(store, ranks.index(rank), len(ranks), timeout)
        part._set_group_name(name)
        return part
