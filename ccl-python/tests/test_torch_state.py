"""Shared state of torch: modules, optimizers and shards. Skipped without torch."""

import gc
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import run

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")

pytestmark = pytest.mark.torch

TYPES = (
    "uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 bool "
    "complex64 complex128 float8_e4m3fn"
)


def level_all_types(communicator: ccl.Communicator, revision: int) -> None:
    rank = communicator.rank
    tensors = {
        f"{name}.{len(shape)}": torch.full(shape, 1 + rank, dtype=torch.float64)
        .gt(1)
        .to(getattr(torch, name))
        for name in TYPES.split()
        for shape in [(0, 3), (), (5,), (7, 3, 2)]
    }
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    info = communicator.sync(ccl.SharedState(tensors, revision=revision))
    assert rank == 0 or info.received_bytes > 0
    for name, tensor in tensors.items():
        assert tensor.data_ptr() == addresses[name], "in place"
        assert not tensor.to(torch.complex128).any(), name


def make(seed: int) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 3)
    )
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3 * (seed + 1))


def take_step(model: Any, optimizer: Any, scale: float) -> None:
    generator = torch.Generator().manual_seed(7)
    model(torch.randn(32, 8, generator=generator) * scale).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def make_state(model: Any, optimizer: Any) -> None:
    """Creates state as the error text and docs/python.md say."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [item for key in value for item in [key, *flat(value[key])]]
    if isinstance(value, list):
        return [item for inner in value for item in flat(inner)]
    return [value.tolist()] if isinstance(value, torch.Tensor) else [value]


def level_training(communicator: ccl.Communicator, revision: int) -> list[Any]:
    rank = communicator.rank
    model, optimizer = make(rank)
    if rank == 0:
        for _ in range(3):
            take_step(model, optimizer, 1.0)
    else:
        make_state(model, optimizer)
    source = [model, optimizer, {"epoch": rank}]
    state = ccl.SharedState(source, revision=0 if rank else revision)
    assert "0.1.running_var" in state.names and "1.state.0.exp_avg" in state.names
    before = [parameter.data_ptr() for parameter in model.parameters()]
    assert communicator.sync(state).revision == revision
    assert before == [parameter.data_ptr() for parameter in model.parameters()]
    assert optimizer.param_groups[0]["lr"] == 1e-3
    take_step(model, optimizer, 1.0)
    return flat([model.state_dict(), optimizer.state_dict()])


def find_replaced_tensors(communicator: ccl.Communicator, revision: int) -> None:
    model, optimizer = make(communicator.rank)
    make_state(model, optimizer)
    state = ccl.SharedState({"model": model, "optimizer": optimizer}, revision=revision)
    optimizer.load_state_dict(make_saved(communicator.rank))
    communicator.sync(state)
    assert not optimizer.state[model[0].weight]["exp_avg"].any(), "rank 0 has zeros"


def make_saved(rank: int) -> Any:
    model, optimizer = make(rank)
    make_state(model, optimizer)
    saved = optimizer.state_dict()
    for of_parameter in saved["state"].values():
        of_parameter["exp_avg"].fill_(float(rank))
    return saved


def level_shards(communicator: ccl.Communicator, revision: int) -> list[Any]:
    from torch.distributed.fsdp import fully_shard

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    model, optimizer = make(communicator.rank)
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    take_step(model, optimizer, 1.0 + communicator.rank)
    assert isinstance(model[0].weight, torch.distributed.tensor.DTensor)
    communicator.sync(ccl.SharedState([model, optimizer], revision=revision))
    shards = [parameter.to_local() for parameter in model.parameters()]
    moments = [optimizer.state[parameter]["exp_avg"].to_local() for parameter in model.parameters()]
    torch.distributed.destroy_process_group()
    return flat(shards + moments)


def drop_tensor(communicator: ccl.Communicator, revision: int) -> None:
    tensor = torch.full((1_000_000,), communicator.rank)
    watch = weakref.ref(tensor)
    if communicator.rank == 1:
        communicator.barrier()
    handle = communicator.sync_async(ccl.SharedState({"tensor": tensor}, revision=revision))
    storage = weakref.ref(tensor.untyped_storage())
    del tensor
    gc.collect()
    if communicator.rank == 0:
        communicator.barrier()
    assert handle.wait().revision == revision
    gc.collect()
    assert watch() is None and storage() is None, "the sync is over"


FACTS: dict[str, Callable[[ccl.Communicator, int], Any]] = {
    "every type of torch is levelled in place": level_all_types,
    "a newcomer goes on training with the others' bits": level_training,
    "tensors that torch replaced are found": find_replaced_tensors,
    "a tensor lives as long as its sync": drop_tensor,
    "local shards are levelled": level_shards,
}


def check_all(communicator: ccl.Communicator) -> tuple[dict[str, str], dict[str, Any]]:
    """Failures and results of all checks, by name. They share one process: importing torch is slow."""
    failures: dict[str, str] = {}
    results: dict[str, Any] = {}
    for revision, (fact, check) in enumerate(FACTS.items()):
        try:
            results[fact] = check(communicator, revision)
        except Exception:
            failures[fact] = traceback.format_exc()
        communicator.barrier(tag=9)
    return failures, results


@pytest.fixture(scope="module")
def outcomes() -> list[tuple[dict[str, str], dict[str, Any]]]:
    return run(2, check_all)


@pytest.mark.parametrize("fact", FACTS)
def test_between_two_processes(fact: str, outcomes: Any) -> None:
    for rank, (failures, _) in enumerate(outcomes):
        assert fact not in failures, f"on rank {rank}:\n{failures[fact]}"
    assert outcomes[0][1][fact] == outcomes[1][1][fact]


def test_an_optimizer_without_state_is_refused_with_what_to_do() -> None:
    model, optimizer = make(0)
    with pytest.raises(ccl.InvalidArgument, match="no state yet.*gradient of zeros"):
        ccl.SharedState([model, optimizer])
    make_state(model, optimizer)
    assert "state.0.step" in ccl.SharedState(optimizer).names
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    assert "group.0.lr" in ccl.SharedState(plain).names
    with pytest.raises(ccl.InvalidArgument, match="no state yet"):
        ccl.SharedState(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def reload(source: Any, change: Callable[[], None], folder: Path) -> None:
    """Saves, changes and loads the state, which writes it as a sync would."""
    state = ccl.SharedState(source, revision=1)
    state.save(folder)
    change()
    assert state.load(folder)


@pytest.mark.parametrize(
    ("kind", "settings", "others"),
    [
        ("AdamW", {"betas": (0.9, 0.95), "amsgrad": True}, {"betas": (0.5, 0.6), "amsgrad": False}),
        ("SGD", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "nesterov": False}),
        ("LBFGS", {"line_search_fn": "strong_wolfe"}, {"line_search_fn": None}),
        ("Rprop", {"etas": (0.5, 1.2), "step_sizes": (1, 50)}, {"etas": (0.1, 2), "step_sizes": (2, 9)}),
    ],
)
def test_every_setting_of_an_optimizer_travels(
    kind: str, settings: Any, others: Any, tmp_path: Path
) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.zeros(3)
    optimizer = getattr(torch.optim, kind)([weight], lr=0.1, **settings)
    optimizer.step(lambda: torch.zeros(()))
    optimizer.state = {}  # This test is about settings.
    optimizer.state[weight] = {"step": torch.zeros(())}
    group = optimizer.param_groups[0]
    before = {key: value for key, value in group.items() if key != "params"}
    reload(optimizer, lambda: group.update(others, lr=1.0, maximize=True), tmp_path)
    after = {key: value for key, value in group.items() if key != "params"}
    assert {**before, "maximize": after.get("maximize")} == after
    assert after.get("maximize") in (False, True)
    for key, value in settings.items():
        assert type(after[key]) is type(value), key


def test_a_setting_that_cannot_travel_is_refused_by_name() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([{"params": [weight], "decay": lambda step: step}], lr=0.1)
    with pytest.raises(ccl.InvalidArgument, match=r"'group.0.decay': a function cannot be shared"):
        ccl.SharedState(optimizer)


def differ_in_a_flag(communicator: ccl.Communicator) -> Any:
    weight = torch.nn.Parameter(torch.ones(3))
    nesterov = communicator.rank == 0
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=nesterov)
    weight.grad = torch.zeros(3)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3)
    for _ in range(5 - communicator.rank):
        optimizer.step()
        scheduler.step()
    communicator.sync(ccl.SharedState([optimizer, scheduler], revision=1))
    return optimizer.param_groups[0]["nesterov"], scheduler.last_epoch, scheduler.get_last_lr()


def test_members_that_differ_in_a_flag_and_a_schedule_are_levelled() -> None:
    first, second = run(2, differ_in_a_flag)
    assert first == second == (True, 5, [pytest.approx(0.01)])


@pytest.mark.parametrize(
    "make_scheduler",
    [
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=20),
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1),
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=3),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9),
            ],
            milestones=[3],
        ),
        lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4]),
    ],
)
def test_a_scheduler_goes_on_where_it_was_saved(make_scheduler: Any, tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.zeros(3)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    scheduler = make_scheduler(optimizer)
    arguments = (1.0,) if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else ()

    def go(steps: int) -> list[float]:
        for _ in range(steps):
            optimizer.step()
            scheduler.step(*arguments)
        return [group["lr"] for group in optimizer.param_groups]

    go(2)
    state = ccl.SharedState([optimizer, scheduler], revision=1)
    state.save(tmp_path)
    wanted = go(3)
    go(3)
    assert state.load(tmp_path)
    assert go(3) == wanted


def test_a_state_dict_that_nobody_keeps_is_refused(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3)
    state = ccl.SharedState({"scheduler": {"last_epoch": scheduler.last_epoch}}, revision=1)
    state.save(tmp_path)
    with pytest.raises(ccl.InvalidArgument, match=r"'scheduler.last_epoch': only the shared state.*its state_dict"):
        state.load(tmp_path)


class Counting(torch.optim.Optimizer):  # type: ignore[misc, name-defined]
    """An optimizer that counts with a Python number, as some do."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["step"] = state.get("step", 0) + 1
                state["norm"] = 0.5 * state["step"]
                state["nothing"] = None


def test_numbers_of_an_optimizer_are_loaded_as_numbers(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = Counting([weight], {"lr": 1})
    optimizer.step()
    state = ccl.SharedState(optimizer, revision=1)
    assert state.names == ["state.0.norm", "state.0.step", "group.0.lr"]
    state.save(tmp_path)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 5
    assert state.load(tmp_path)
    assert optimizer.state[weight] == {"step": 1, "norm": 0.5, "nothing": None}
    assert [type(value) for value in optimizer.state[weight].values()] == [int, float, type(None)]
    assert optimizer.param_groups[0]["lr"] == 1
    optimizer.param_groups[0]["lr"] = 0.25
    state.save(tmp_path / "fraction")
    optimizer.param_groups[0]["lr"] = 1
    assert state.load(tmp_path / "fraction")
    assert optimizer.param_groups[0]["lr"] == 0.25, "an int is replaced where it has no such value"
    optimizer.param_groups[0]["seed"] = 2**53 + 1
    with pytest.raises(ccl.InvalidArgument, match=r"'group.0.seed': 9007199254740993 .*2\*\*53"):
        ccl.SharedState(optimizer)
    optimizer.param_groups[0]["seed"] = 2**53
    optimizer.state[weight]["log"] = [1]
    with pytest.raises(ccl.InvalidArgument, match="a list in an optimizer's state"):
        ccl.SharedState(optimizer)


def test_a_tensor_that_cannot_be_shared_is_refused_by_name() -> None:
    for tensor, advice in [
        (torch.ones(4, 4).T[1:], r"tensor.contiguous\(\)"),
        (torch.ones(4, 4).to_sparse(), r"tensor.to_dense\(\)"),
        (torch.ones(4, device="meta"), r"on meta.*tensor.cpu\(\)"),
    ]:
        with pytest.raises(ccl.InvalidArgument, match=f"entry \"layer.weight\": .*{advice}"):
            ccl.SharedState({"layer": {"weight": tensor}})
