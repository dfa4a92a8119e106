"""A group that is reconfigured again and again keeps nothing of its former members."""

import gc
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import ccl
import pytest
from peers import HANG_SECONDS, Pipe, started

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402

import ccl.torch  # noqa: E402

if not hasattr(dist, "_reconfigure"):
    pytest.skip("this torch has no reconfigure", allow_module_level=True)

pytestmark = pytest.mark.torch
WORLD = 3
ROUNDS = 200
#: Rounds between two measurements, since a measurement takes longer than a round.
INTERVAL = 10
#: Measurements while caches fill, and as many at the end.
LOOKS = 4
#: The library allocates scratch memory in 16 MiB, of which the allocator may keep several.
MEMORY_KIB_MAX = 80 << 10
#: Those of the group before may be closing still; far fewer than one per round.
DESCRIPTORS_MAX = 8
THREADS_MAX = 8
#: Far fewer than one per round.
OBJECTS_MAX = ROUNDS // 4


class Usage(NamedTuple):
    """The resources of a process."""

    memory_kib: int
    descriptors: int
    threads: int
    objects: int


def usage() -> Usage:
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    memory, threads = (int(fields[name].split()[0]) for name in ("VmRSS", "Threads"))
    return Usage(memory, len(os.listdir("/proc/self/fd")), threads, len(gc.get_objects()))


def most(of: list[Usage]) -> Usage:
    return Usage(*map(max, zip(*of, strict=True)))


def reconfigure_often(pipe: Pipe, address: str, folder: str) -> tuple[Usage, Usage]:
    """The most it had in its first rounds, and in its last."""
    ccl.torch.use_master(address)
    rank = pipe.wait()
    timeout = timedelta(seconds=HANG_SECONDS)
    store: Any = dist.FileStore(f"{folder}/store", WORLD)
    dist.init_process_group(
        "ccl", store=store, rank=rank, world_size=WORLD, timeout=timeout, enable_reconfigure=True
    )
    pipe.say(dist._get_reconfigure_handle())
    handles = pipe.wait()
    used: list[Usage] = []
    for uuid in range(ROUNDS):
        dist._reconfigure(uuid, handles).wait()
        dist.all_reduce(torch.ones(1000))
        is_near_an_end = min(uuid, ROUNDS - 1 - uuid) < LOOKS * INTERVAL
        if uuid % INTERVAL == INTERVAL - 1 and is_near_an_end:
            gc.collect()
            used.append(usage())
    assert threading.active_count() == 1
    return most(used[:LOOKS]), most(used[-LOOKS:])


def test_it_keeps_nothing(tmp_path: Path) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(WORLD, reconfigure_often, master.address, str(tmp_path)) as peers:
            for rank, peer in enumerate(peers):
                peer.pipe.send(rank)
            handles = [peer.receive() for peer in peers]
            for peer in peers:
                peer.pipe.send(handles)
            for first, last in [peer.receive() for peer in peers]:
                assert last.descriptors <= first.descriptors + DESCRIPTORS_MAX, (first, last)
                assert last.threads <= first.threads + THREADS_MAX, (first, last)
                assert last.objects <= first.objects + OBJECTS_MAX, (first, last)
                assert last.memory_kib <= first.memory_kib + MEMORY_KIB_MAX, (first, last)
