"""Ctrl-C during torch's collectives raises `KeyboardInterrupt`, and the group remains usable."""

import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import ccl.torch  # noqa: E402
from ccl.torch._group import Group  # noqa: E402
from ccl.torch._order import STREAMS, Operation  # noqa: E402

pytestmark = pytest.mark.torch


def begin(address: str, folder: str, rank: int) -> None:
    ccl.torch.use_master(address)
    timeout = timedelta(seconds=HANG_SECONDS)
    dist.init_process_group(
        "ccl", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timeout
    )


def interrupt_the_wait(pipe: Pipe, has_posted: threading.Event) -> None:
    """Sends SIGINT once the main thread waits, in C++, for the operations it has posted."""
    main = threading.main_thread().ident
    assert main is not None and has_posted.wait(HANG_SECONDS)
    while sys._current_frames()[main].f_code.co_name != "_engine_run_backward":
        time.sleep(0.001)
    signal.pthread_kill(main, signal.SIGINT)
    pipe.say("interrupted")


def step_interrupted(pipe: Pipe, address: str, folder: str, rank: int) -> tuple[bool, list[float]]:
    begin(address, folder, rank)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model(torch.full((4, 8), rank + 1.0)).sum()
    was_interrupted = False
    if rank == 0:
        has_posted = threading.Event()
        post = Group._post

        def post_and_tell(self: Group, *arguments: Any) -> Any:
            work = post(self, *arguments)
            has_posted.set()
            return work

        Group._post = post_and_tell  # type: ignore[assignment, method-assign]
        threading.Thread(target=interrupt_the_wait, args=(pipe, has_posted)).start()
    else:
        pipe.wait()
    try:
        loss.backward()
    except KeyboardInterrupt:
        was_interrupted = True
    optimizer.step()
    optimizer.zero_grad()
    model(torch.full((4, 8), rank + 1.0)).sum().backward()
    optimizer.step()
    dist.destroy_process_group()
    return was_interrupted, model.module.weight.flatten().tolist()


def test_ctrl_c_while_ddp_waits_is_a_keyboard_interrupt_after_the_step(tmp_path: Path) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(step_interrupted, master.address, str(tmp_path), rank) for rank in range(2)]
        try:
            assert peers[0].receive() == "interrupted"
            peers[1].pipe.send("go on")
            (first, weights), (second, others) = [peer.receive() for peer in peers]
        finally:
            for peer in peers:
                peer.end()
    assert (first, second) == (True, False)
    assert weights == others


def post_interrupted(_pipe: Pipe, address: str, folder: str, rank: int) -> list[float]:
    begin(address, folder, rank)
    may_begin = Operation.may_begin

    def interrupt(self: Operation) -> bool:
        Operation.may_begin = may_begin  # type: ignore[method-assign]
        signal.raise_signal(signal.SIGINT)
        return may_begin(self)

    Operation.may_begin = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        dist.all_reduce(torch.ones(1))
    tensors = [torch.ones(1) for _ in range(2 * STREAMS)]
    for tensor in tensors:
        dist.all_reduce(tensor)
    dist.destroy_process_group()
    return [tensor.item() for tensor in tensors]


def test_ctrl_c_never_leaves_an_operation_half_posted(tmp_path: Path) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(post_interrupted, master.address, str(tmp_path), rank) for rank in range(2)]
        try:
            assert [peer.receive() for peer in peers] == [[2.0] * 2 * STREAMS] * 2
        finally:
            for peer in peers:
                peer.end()
