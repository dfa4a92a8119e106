"""Concurrent operations of torch, and their continuations."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
from torch.distributed.algorithms.ddp_comm_hooks import (  # noqa: E402
    powerSGD_hook,
    quantization_hooks,
)
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import ccl.torch  # noqa: E402

pytestmark = pytest.mark.torch


def run_two(body: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(ranked, master.address, str(folder), rank, body, args) for rank in range(2)]
        try:
            return [peer.receive() for peer in peers]
        finally:
            for peer in peers:
                peer.end()


def ranked(
    _pipe: Pipe, address: str, folder: str, rank: int, body: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    ccl.torch.use_master(address)
    begin("ccl", folder, rank)
    result = body(rank, *args)
    dist.barrier()
    dist.destroy_process_group()
    return result


def begin(backend: str, folder: str, rank: int) -> None:
    dist.init_process_group(
        backend,
        init_method=f"file://{folder}/{backend}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=HANG_SECONDS),
    )


def start(value: float = 1.0, **options: Any) -> Any:
    return dist.all_reduce(torch.full((4,), value), async_op=True, **options)


def reduce_in_continuations(rank: int) -> list[float]:
    """Each of many continuations waits for an operation and for its continuation."""

    def again(future: Any) -> Any:
        [tensor] = future.value()
        work = dist.all_reduce(tensor, async_op=True)
        return work.get_future().then(lambda inner: inner.value()[0] * 10).wait()

    futures = [start(number).get_future().then(again) for number in range(40)]
    return [float(future.then(lambda last: last.value()[0]).wait()) for future in futures]


def test_continuations_wait_for_operations_and_for_continuations(tmp_path: Path) -> None:
    expected = [number * 2 * 2 * 10.0 for number in range(40)]
    assert run_two(reduce_in_continuations, tmp_path) == [expected, expected]


def reduce_in_any_order(rank: int) -> list[list[float]]:
    """Continuations run in a different order on each rank; only their place distinguishes their posts."""
    first_may_go, second_may_go = threading.Event(), threading.Event()
    [mine, other] = [first_may_go, second_may_go][:: 1 if rank == 0 else -1]
    mine.set()

    def follow(gate: threading.Event, value: float) -> Callable[[Any], Any]:
        def run(_future: Any) -> list[float]:
            assert gate.wait(HANG_SECONDS)
            other.set()
            works = [start(value + number) for number in range(3)]
            return [float(work.get_future().wait()[0][0]) for work in works]

        return run

    # The delayed operation does not complete before its continuations exist.
    held: list[Any] = [dist.new_group([0, 1]) for _ in range(2)]
    whole = torch.zeros(4)
    works: list[Any] = [dist.all_reduce(whole, async_op=True, group=held[rank])]
    works += [dist.all_reduce(whole, async_op=True) for _ in range(2)]
    futures = [
        works[1].get_future().then(follow(first_may_go, 100.0)),
        works[2].get_future().then(follow(second_may_go, 200.0)),
    ]
    main = [start(value) for value in (1.0, 2.0)]
    start(group=held[1 - rank])
    found = [future.wait() for future in futures]
    return [*found, [float(work.result()[0][0]) for work in main]]


def test_what_continuations_post_is_told_apart_by_their_place_in_the_program(tmp_path: Path) -> None:
    expected = [[200.0, 202.0, 204.0], [400.0, 402.0, 404.0], [2.0, 4.0]]
    assert run_two(reduce_in_any_order, tmp_path) == [expected, expected]


def block_continuations(rank: int) -> None:
    lone = dist.new_group([0]), dist.new_group([1])
    gate: Any = dist.new_group([0, 1])
    go_on = threading.Event()
    if rank == 1:
        dist.barrier(gate)
    futures = [start().get_future() for _ in range(10)]
    # Those of rank 0 have not completed yet.
    blocked = [future.then(lambda _future: go_on.wait()) for future in futures if rank == 0]
    if rank == 0:
        dist.barrier(gate)
    assert start(group=lone[rank]).wait(timedelta(seconds=HANG_SECONDS))
    handle = ccl.torch.communicator().barrier_async(tag=1)
    told = threading.Event()
    handle.add_done_callback(told.set)
    assert told.wait(HANG_SECONDS)
    go_on.set()
    assert all(future.wait() for future in blocked)


def test_a_slow_continuation_holds_nobody_else_up(tmp_path: Path) -> None:
    run_two(block_continuations, tmp_path)


def use_groups_in_different_orders(rank: int) -> list[float]:
    groups = [dist.new_group([0, 1]) for _ in range(2)]
    works = []
    for group in groups if rank == 0 else groups[::-1]:
        works.append([start(float(number), group=group) for number in range(40)])
    assert not all(work.is_completed() for some in works for work in some) or rank == 1
    for some in works:
        for work in some:
            work.wait()
    return [float(work.result()[0][0]) for work in works[0]]


def test_posting_never_blocks_so_groups_may_be_used_in_different_orders(tmp_path: Path) -> None:
    expected = [2.0 * number for number in range(40)]
    assert run_two(use_groups_in_different_orders, tmp_path) == [expected, expected]


def use_memory_twice(rank: int) -> dict[str, list[float]]:
    whole = torch.full((1 << 16,), float(rank + 1))
    column = torch.full((1 << 10, 2), float(rank + 1))[:, 0]
    gathered = torch.zeros(2, 4)
    works: list[Any] = [dist.all_reduce(whole, async_op=True) for _ in range(3)]
    works += [dist.all_reduce(whole[5:], async_op=True)]
    works += [dist.all_reduce(column, async_op=True) for _ in range(2)]
    works += [dist.all_gather_into_tensor(gathered, whole[:4], async_op=True)]
    works += [dist.all_reduce(gathered, async_op=True)]
    works[-1].wait()
    for work in works:
        work.wait()
    return {
        "whole": [float(whole[0]), float(whole[-1])],
        "column": column[:2].tolist(),
        "gathered": gathered.view(-1).tolist(),
    }


def test_operations_on_the_same_memory_run_in_the_order_of_their_posts(tmp_path: Path) -> None:
    expected = {"whole": [12.0, 24.0], "column": [6.0, 6.0], "gathered": [24.0] * 8}
    assert run_two(use_memory_twice, tmp_path) == [expected, expected]


def fail_in_a_row(rank: int) -> None:
    gate: Any = dist.new_group([0, 1])
    lone: Any = [dist.new_group([0]), dist.new_group([1])][rank]
    ccl.torch.communicator(lone).close()
    if rank == 1:
        dist.barrier(gate)
        start().wait()
        return
    tensor = torch.ones(4)
    first = dist.all_reduce(tensor, async_op=True)
    works = [dist.all_reduce(tensor, async_op=True, group=lone) for _ in range(1500)]
    assert not works[0].is_completed(), "it follows the first"
    dist.barrier(gate)
    assert first.wait()
    for work in works:
        with pytest.raises(ccl.Ended):
            work.wait()
    ccl.torch.raise_pending()


def test_operations_that_fail_as_they_begin_are_told_one_by_one(tmp_path: Path) -> None:
    run_two(fail_in_a_row, tmp_path)


def fail_in_continuation(rank: int) -> None:
    def fail(_future: Any) -> Any:
        raise KeyError("mine")

    future = start().get_future().then(fail)
    for following in [future, future.then(lambda before: before.value())]:
        with pytest.raises(KeyError, match="mine"):
            following.wait()


def test_the_error_of_a_continuation_is_that_of_its_future(tmp_path: Path) -> None:
    run_two(fail_in_continuation, tmp_path)


def fork_with_operations(rank: int) -> int:
    work = start() if rank == 0 else None
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(ccl.Forked):
                dist.all_reduce(torch.ones(1))
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    (start() if work is None else work).wait()
    return os.waitstatus_to_exitcode(ended)


def test_a_forked_child_does_not_wait_for_its_parents_operations(tmp_path: Path) -> None:
    assert run_two(fork_with_operations, tmp_path) == [0, 0]


STEPS = 8


def network() -> Any:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(32, 64), torch.nn.Tanh(), torch.nn.Linear(64, 48), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(48, 4))


def hook_of(kind: str) -> tuple[Any, Callable[[Any, Any], Any]]:
    """A gradient hook, and its state, with collectives in its continuations."""
    if kind == "power":
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2)
        return state, powerSGD_hook.powerSGD_hook
    if kind == "quantize":
        return dist.group.WORLD, quantization_hooks.quantization_pertensor_hook
    return dist.group.WORLD, quantization_hooks.quantization_perchannel_hook


def waited_for(hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The hook, for one bucket at a time. Gloo mixes up posts of several buckets' continuations."""

    def run(state: Any, bucket: Any) -> Any:
        future = hook(state, bucket)
        future.wait()
        return future

    run.__annotations__ = hook.__annotations__
    return run


def train(backend: str, kind: str, rank: int) -> list[float]:
    """The losses of a model with gradients in several buckets."""
    model = DistributedDataParallel(network(), bucket_cap_mb=0.004)
    state, hook = hook_of(kind)
    model.register_comm_hook(state, waited_for(hook) if backend == "gloo" else hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    source = torch.Generator().manual_seed(rank)
    losses = []
    for _ in range(STEPS):
        inputs = torch.randn(32, 32, generator=source)
        loss = torch.nn.functional.mse_loss(model(inputs), inputs[:, :4].sin())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def compare(_pipe: Pipe, address: str, folder: str, rank: int, kind: str) -> dict[str, list[float]]:
    ccl.torch.use_master(address)
    curves = {}
    for backend in ["gloo", "ccl"]:
        begin(backend, folder, rank)
        curves[backend] = train(backend, kind, rank)
        dist.barrier()
        dist.destroy_process_group()
    return curves


@pytest.mark.parametrize("kind", ["power", "quantize", "quantize channels"])
def test_the_curve_of_a_hook_that_communicates_in_continuations_is_that_of_gloo(
    kind: str, tmp_path: Path
) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        peers = [Peer(compare, master.address, str(tmp_path), rank, kind) for rank in range(2)]
        try:
            for curves in [peer.receive() for peer in peers]:
                assert curves["ccl"] == pytest.approx(curves["gloo"], abs=1e-6)
                assert curves["ccl"][-1] < curves["ccl"][0]
        finally:
            for peer in peers:
                peer.end()
