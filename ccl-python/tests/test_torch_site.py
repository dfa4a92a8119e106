"""`ccl.torch.Site`: sites of two processes that shard one model. Skipped without torch."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccl
import pytest
from peers import HANG_SECONDS, Peer, Pipe

torch = pytest.importorskip("torch", reason="torch is not installed; see `make test-torch`")
import torch.distributed as dist  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402

import ccl.torch  # noqa: E402

pytestmark = pytest.mark.torch
SHARDS = 2


def process(
    pipe: Pipe, master: str, store: str, number: int, shard: int, sites: int, body: Callable[..., Any]
) -> Any:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=shard,
        world_size=SHARDS,
        timeout=timedelta(seconds=HANG_SECONDS),
    )
    with ccl.torch.Site(
        master,
        initial_world_size=sites,
        connect_timeout=HANG_SECONDS,
        operation_timeout=HANG_SECONDS,
    ) as site:
        return body(pipe, site, number)


@contextmanager
def sites(count: int, body: Callable[..., Any]) -> Iterator[list[list[Peer]]]:
    """The processes of each site."""
    peers: list[list[Peer]] = []
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, tempfile.TemporaryDirectory() as at:
        try:
            for number in range(count):
                store = str(Path(at) / str(number))
                peers.append(
                    [
                        Peer(process, master.address, store, number, shard, count, body)
                        for shard in range(SHARDS)
                    ]
                )
            yield peers
        finally:
            for site in peers:
                for peer in site:
                    peer.end()


def learn(_pipe: Pipe, site: ccl.torch.Site, number: int) -> Any:
    torch.manual_seed(number)
    # The second layer has one row, so its second shard is empty.
    model = fully_shard(torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 1)))
    parameters = list(model.parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters)
    before = [parameter.to_local().detach().clone() for parameter in parameters]
    strided = torch.full((2, 3), float(number)).T
    took_part = site.all_reduce([*parameters, strided])
    assert took_part == site.sites and site.id in took_part and site.world_size == 2
    assert strided.eq(0.5).all()
    averages = [parameter.to_local().detach().clone() for parameter in parameters]

    # What fails in one process of a site is done by none.
    kept = torch.full((4,), float(number))
    with pytest.raises(ccl.InvalidArgument, match="bool"):
        site.all_reduce([torch.zeros(3, dtype=torch.bool)] if site.shard == 1 else [kept])
    assert kept.eq(number).all()

    state = ccl.SharedState({"model": model, "number": kept}, revision=1 - number)
    assert site.sync(state).revision == 1
    assert kept.eq(0).all(), "the newest revision is that of site 0"
    assert site.update_topology() == frozenset()
    return [tensor.tolist() for tensor in before], [tensor.tolist() for tensor in averages]


def test_shards_are_averaged_and_synced_site_by_site() -> None:
    with sites(2, learn) as peers:
        told = [[peer.receive() for peer in site] for site in peers]
    for shard in range(SHARDS):
        (east, average), (west, same) = (told[site][shard] for site in range(2))
        assert average == same
        for of_east, of_west, of_both in zip(east, west, average, strict=True):
            expected = (torch.tensor(of_east) + torch.tensor(of_west)) / 2
            assert torch.allclose(torch.tensor(of_both), expected)
    assert told[0][0] != told[0][1]


def lose_a_site(pipe: Pipe, site: ccl.torch.Site, number: int) -> Any:
    """Site 2 takes part with its shard 0 only; the test ends shard 1 after that."""
    values = torch.full((1000,), float(number))
    if number < 2:
        took_part = site.all_reduce([values], "sum")
        return values.unique().tolist(), sorted(took_part), sorted(site.sites)
    if site.shard == 0:
        outcome = site.communicator.all_reduce_many([values], "sum", attempts=64)
        assert outcome.world_size == 3
        pipe.say("committed")
        with pytest.raises(ccl.SessionOver) as over:
            site.all_reduce([values], "sum")
        pipe.say(str(over.value))
    return pipe.wait()


def test_a_site_of_which_only_some_shards_took_part_is_left_out_everywhere() -> None:
    with sites(3, lose_a_site) as peers:
        assert peers[2][0].receive() == "committed"
        peers[2][1].end()
        assert "of the same unit, was lost" in peers[2][0].receive()
        told = [peer.receive() for site in peers[:2] for peer in site]
    values, took_part, left = told[0]
    assert values == [1.0], "0 of the first site, 1 of the second"
    assert took_part == left and len(left) == 2
    assert told == [told[0]] * 4
