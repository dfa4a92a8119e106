"""Checks of torch's calls: which arguments all members must agree on, and which must fit together.

The library compares element types and lengths between members, but collectives without a reduction
move plain bytes, and several of torch's collectives are built on one of the library's. So the name of
each call includes the rest, and members compare the names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

import ccl


@dataclass(frozen=True)
class Call:
    """One collective as the caller described it."""

    #: Must be the same on all members; otherwise the call is aborted for all.
    name: str
    #: The call's own timeout, if set.
    timeout: timedelta | None = None
    #: The root rank, if the collective has one.
    root: int = 0


def named(name: str, opts: Any = None, root: int = 0) -> Call:
    """A call with the options that torch passed."""
    timeout = getattr(opts, "timeout", None)
    has_own = isinstance(timeout, timedelta) and timeout > timedelta(0)
    return Call(name, timeout if has_own else None, root)


def types(tensors: Sequence[torch.Tensor]) -> str:
    """The element types of tensors, each once, as users write them."""
    names = dict.fromkeys(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
    shown = " and ".join(list(names)[:3])
    return f"{shown} and more" if len(names) > 3 else shown


def check_some(what: str, tensors: Sequence[Any]) -> None:
    """Refuses a call without tensors: other members may have passed some."""
    if not tensors:
        raise ccl.InvalidArgument(f"{what}: the list of tensors is empty")


def only(what: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the only tensor; refuses any other number of tensors."""
    if len(tensors) != 1:
        raise ccl.InvalidArgument(f"{what} takes one tensor, not {len(tensors)}")
    return tensors[0]


def check_root(what: str, root: int, size: int) -> None:
    """Refuses a rank outside the group."""
    if not 0 <= root < size:
        raise ccl.InvalidArgument(f"{what}: rank {root} is not one of the {size} ranks of the group")


def check_count(what: str, found: int, wanted: int) -> None:
    """Refuses a list of the wrong length."""
    if found != wanted:
        raise ccl.InvalidArgument(f"{what}: a list has {found} tensors, but {wanted} are needed")


def check_alike(what: str, tensor: torch.Tensor, like: torch.Tensor, times: int = 1) -> None:
    """Refuses a tensor unless it has the type of ``like`` and ``times`` as many elements."""
    check_type(what, tensor, like)
    if tensor.numel() != times * like.numel():
        raise ccl.InvalidArgument(
            f"{what}: a tensor has {tensor.numel()} elements, but {times * like.numel()} are needed"
        )


def check_type(what: str, tensor: torch.Tensor, like: torch.Tensor) -> None:
    """Refuses a tensor whose type differs from that of ``like``."""
    if tensor.dtype != like.dtype:
        raise ccl.InvalidArgument(
            f"{what}: one tensor is {types([tensor])} but another is {types([like])}; all must have the "
            "same type"
        )


def check_shares(
    what: str, shares: Sequence[Sequence[torch.Tensor]], wholes: Sequence[torch.Tensor], size: int
) -> None:
    """Refuses lists unless each has, for its item of ``wholes``, one matching tensor per rank."""
    check_some(what, wholes)
    check_count(what, len(shares), len(wholes))
    for parts, whole in zip(shares, wholes, strict=True):
        check_count(what, len(parts), size)
        for part in parts:
            check_alike(what, part, whole)
