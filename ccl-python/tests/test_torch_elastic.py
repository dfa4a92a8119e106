"""Elastic runs: what torch would do separately in each process is done together, or refused."""

import traceback
from collections.abc import Callable
from typing import Any

import ccl
import pytest
from peers import Pipe, started

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import ccl.torch  # noqa: E402

pytestmark = pytest.mark.torch

#: A tag of the communicator itself; groups use others.
OWN_TAG = 7


def place() -> int:
    return ccl.torch.communicator().rank


def train(model: Any) -> list[float]:
    """The weights after two steps on this process's own data."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    source = torch.Generator().manual_seed(place())
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 8, generator=source)).square().sum().backward()
        optimizer.step()
    weights = [getattr(weight, "full_tensor", lambda weight=weight: weight)() for weight in model.parameters()]
    return [float(value) for value in torch.cat([weight.detach().reshape(-1) for weight in weights])]


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def reduce_and_scatter() -> None:
    share = torch.zeros(3)
    dist.reduce_scatter_tensor(share, torch.full((3,), 1.0 + place()))
    assert share.tolist() == [1.5] * 3
    counts = torch.zeros(2, dtype=torch.int64)
    dist.reduce_scatter(counts, [torch.full((2,), 1 + place())])
    assert counts.tolist() == [3, 3]


def train_with_ddp() -> list[float]:
    return train(DistributedDataParallel(network()))


def train_with_fsdp1() -> list[float]:
    return train(FullyShardedDataParallel(network(), device_id=torch.device("cpu")))


def train_with_fsdp2() -> list[float]:
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("replicate", "shard"))
    return train(fully_shard(network(), mesh=mesh))


def refuse_fsdp2_of_one_dimension() -> None:
    with pytest.raises(ccl.InvalidUsage, match="reduces nothing in an elastic run.*two dimensions"):
        fully_shard(network())


def refuse_join() -> None:
    model = DistributedDataParallel(network())
    with pytest.raises(ccl.InvalidUsage, match=r"join\(\) counts the ranks"):
        with model.join():
            pass


FACTS: dict[str, Callable[[], Any]] = {
    "reduce_scatter reduces": reduce_and_scatter,
    "DDP trains together": train_with_ddp,
    "FSDP1 trains together": train_with_fsdp1,
    "FSDP2 with a replicate dimension trains together": train_with_fsdp2,
    "FSDP2 without one is refused": refuse_fsdp2_of_one_dimension,
    "join is refused": refuse_join,
}


def check_all(_pipe: Pipe, address: str) -> tuple[dict[str, str], dict[str, Any]]:
    dist.init_process_group("ccl", init_method=f"ccl://{address}?initial_world_size=2")
    failures, results = {}, {}
    for fact, check in FACTS.items():
        try:
            results[fact] = check()
        except BaseException:
            failures[fact] = traceback.format_exc()
        ccl.torch.communicator().barrier(tag=OWN_TAG)
    dist.destroy_process_group()
    return failures, results


@pytest.fixture(scope="module")
def outcomes() -> list[tuple[dict[str, str], dict[str, Any]]]:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(2, check_all, master.address) as peers:
            return [peer.receive() for peer in peers]


@pytest.mark.parametrize("fact", FACTS)
def test_between_two_peers(fact: str, outcomes: Any) -> None:
    for failures, _ in outcomes:
        assert fact not in failures, failures[fact]
    (_, first), (_, second) = outcomes
    assert first[fact] == second[fact], "all have the same weights"
    if "trains" in fact:
        assert first[fact] == pytest.approx(first["DDP trains together"], abs=1e-6)


def grow(pipe: Pipe, address: str, is_newcomer: bool) -> list[float]:
    dist.init_process_group("ccl", init_method=f"ccl://{address}?initial_world_size=2")
    if not is_newcomer:
        groups: list[Any] = [dist.new_group([0]) for _ in range(2)]
        pipe.say("founded")
        while ccl.torch.communicator().world_size < 3:
            ccl.torch.update_topology()
        with pytest.raises(ccl.InvalidUsage, match="before newcomers joined"):
            dist.all_reduce(torch.ones(1), group=groups[0])
    means = []
    anew: list[Any] = [dist.new_group([0]), dist.new_group([0]), None]
    for group in anew:
        value = torch.tensor([float(place())])
        dist.all_reduce(value, group=group)
        means.append(float(value))
    return means


def test_members_and_newcomers_number_groups_alike() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(2, grow, master.address, False) as members:
            assert [member.receive() for member in members] == ["founded"] * 2
            with started(1, grow, master.address, True) as [newcomer]:
                for peer in [*members, newcomer]:
                    assert peer.receive() == [1.0] * 3


@pytest.mark.parametrize(
    ("query", "options", "words"),
    [
        ("?world_size=2", {}, "world_size=2 cannot be used.*initial_world_size=N"),
        ("?rank=0", {}, "rank=0 cannot be used.*the master assigns ranks"),
        ("", {"rank": 0, "world_size": 2}, "rank=0 cannot be used.*use_master"),
        ("/other?initial_world_size=2", {}, "'/other' after the address is not allowed"),
    ],
)
def test_what_an_address_cannot_mean_is_refused(
    query: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ccl.InvalidArgument, match=words):
        dist.init_process_group("ccl", init_method=f"ccl://127.0.0.1:1{query}", **options)
