"""Refuses parts of torch that do not reduce in an elastic run, because they count ranks themselves.

In an elastic run torch sees a world of one. What torch asks a group to reduce is averaged over all
members, but some parts skip the reduction in a world of one, and each process would train a model of its
own. They are refused when they are set up.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import ccl


def install() -> None:
    """Patches torch's constructors to refuse groups of an elastic run. Later calls do nothing."""
    from torch.distributed.algorithms.join import Join

    _check_after(Join, "_extract_dist_info", _check_join)
    try:
        from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo
    except ImportError:
        warnings.warn(
            "ccl.torch does not support this version of torch: do not use fully_shard in an elastic run, since "
            "each process would train a model of its own",
            stacklevel=2,
        )
        return
    _check_after(FSDPMeshInfo, "__post_init__", _check_shards)


def _check_after(owner: Any, name: str, check: Callable[[Any], None]) -> None:
    original = getattr(owner, name)
    if hasattr(original, "is_guard_of_ccl"):
        return

    @functools.wraps(original)
    def checked(self: Any, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        check(self)
        return result

    checked.is_guard_of_ccl = True  # type: ignore[attr-defined]
    setattr(owner, name, checked)


def _check_join(join: Any) -> None:
    if _is_elastic(join._process_group):
        raise ccl.InvalidUsage(
            "join() counts the ranks that have inputs left, but in an elastic run torch sees only one rank: "
            "let a process without inputs leave the run instead; the others go on without it"
        )


def _check_shards(mesh: Any) -> None:
    is_replicated = getattr(mesh, "replicate_process_group", None) is not None
    if _is_elastic(mesh.shard_process_group) and not is_replicated:
        raise ccl.InvalidUsage(
            "fully_shard reduces nothing in an elastic run, where torch considers each process to be "
            "alone: each would train a model of its own. Use DistributedDataParallel, or fully_shard with a mesh of two "
            'dimensions, init_device_mesh("cpu", (1, 1), mesh_dim_names=("replicate", "shard")); to shard '
            "over the processes of one site, use ccl.torch.Site"
        )


def _is_elastic(group: Any) -> bool:
    return bool(getattr(group, "is_elastic", False))
