"""FSDP2 inside each site, ccl between the sites: `python fsdp_sites.py`.

Two sites of two processes each train one model on this machine. Inside a site FSDP2 shards it over the
site's own torch world (gloo here). Between the sites, `ccl.torch.Site` averages what they learned since
the last outer step (DiLoCo), shard by shard. The processes of a site live and die together: when one is
lost, the master evicts the other, the site ends, and the other site trains on alone. Started again, it
enters as a whole, with the state of the other site.

One process of a site is killed, then one of the other site, then a whole site; after each kill the site
comes back, and at the end both sites have the same shards.

Usually the master is `ccl master` on some machine, and each process is started at its site, again and
again, by `python fsdp_sites.py HOST:PORT STORE SHARD SITES_AT_THE_START`; STORE is a file of the site's
that does not exist yet.
"""

import hashlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import ccl
import ccl.torch

SHARDS = 2
INNER_STEPS = 10
#: The run ends so many outer steps after a site has joined it for the third time.
OUTER_STEPS = 5
JOINS = 3


class Outer:
    """Nesterov's method on the averaged difference of an outer step, shard by shard."""

    def __init__(self, model: torch.nn.Module) -> None:
        # Shards as plain tensors. On the CPU `to_local` shares their memory, hence the clones.
        self.shards = [parameter.to_local().detach() for parameter in model.parameters()]
        self.anchors = [shard.clone() for shard in self.shards]
        self.momenta = [torch.zeros_like(shard) for shard in self.shards]

    def step(self, site: ccl.torch.Site) -> None:
        pairs = zip(self.anchors, self.shards, strict=True)
        deltas = [anchor - shard for anchor, shard in pairs]
        site.all_reduce(deltas)  # A site that dies costs its share of the average, in all shards.
        for delta, anchor, momentum in zip(deltas, self.anchors, self.momenta, strict=True):
            momentum.mul_(0.9).add_(delta)
            anchor.sub_(delta.add(momentum, alpha=0.9), alpha=0.7)

    def restart(self) -> None:
        """The sites go on from the same weights."""
        for anchor, shard in zip(self.anchors, self.shards, strict=True):
            shard.copy_(anchor)


Say = Callable[[str], None]


def train(
    master: str, store: str, shard: int, initial_world_size: int, say: Say = print
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=shard, world_size=SHARDS)
    with ccl.torch.Site(master, initial_world_size=initial_world_size) as site:
        try:
            train_shard(site, say)
        except RuntimeError as error:
            say(f"shard {shard} ends: {site.explain(error)}")
            raise SystemExit(1) from None
    dist.destroy_process_group()


def train_shard(site: ccl.torch.Site, say: Say) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)]
    model = fully_shard(torch.nn.Sequential(*layers))
    inner = torch.optim.AdamW(model.parameters(), 3e-3)
    outer = Outer(model)
    run = {"joins": 0, "end": 0}
    state = ccl.SharedState({"anchors": outer.anchors, "momenta": outer.momenta, "run": run})
    source = torch.Generator().manual_seed(site.communicator.peer)
    while True:
        step = site.sync(state).revision  # a site that has just joined gets everything here
        outer.restart()
        if run["joins"] == JOINS and step >= run["end"]:
            break
        for _ in range(INNER_STEPS):
            inputs = torch.randn(64, 8, generator=source)
            loss = (model(inputs) - inputs.sum(1, keepdim=True).sin()).square().mean()
            inner.zero_grad()
            loss.backward()
            inner.step()
        outer.step(site)
        state.revision = step + 1
        sites, joins = site.world_size, run["joins"]
        say(f"step {step} shard {site.shard} sites {sites} joins {joins} loss {loss:.4f}")
        time.sleep(0.1)  # This network is too small to watch otherwise.
        if site.update_topology():  # sites enter here, whole
            run["joins"] += 1
            run["end"] = step + OUTER_STEPS
    data = b"".join(shard.numpy().tobytes() for shard in outer.shards)
    say(f"done shard {site.shard} digest {hashlib.sha256(data).hexdigest()[:16]}")


def tell(pipe: Connection, master: str, store: str, shard: int, initial_world_size: int) -> None:
    """`train` in a process of `main`, which prints what it says."""
    train(master, store, shard, initial_world_size, pipe.send)


class Site:
    """The processes of one site, as a launcher there would start them."""

    def __init__(self, processes: ForkServerContext, master: str, store: str, world: int) -> None:
        self.pipes, self.processes = [], []
        for shard in range(SHARDS):
            pipe, theirs = processes.Pipe(duplex=False)
            arguments = (theirs, master, store, shard, world)
            process = processes.Process(target=tell, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(pipe)
            self.processes.append(process)

    def wait_for(self, words: str) -> list[str]:
        """The next line of each process that has these words. All lines are printed."""
        return [wait_for(pipe, words) for pipe in self.pipes]

    def lose(self, shards: list[int]) -> None:
        """Kills these, and waits until the others have ended by themselves."""
        for shard in shards:
            self.processes[shard].kill()
        for shard, process in enumerate(self.processes):
            if shard not in shards:
                wait_for(self.pipes[shard], "of the same unit, was lost")
            process.join()

    def join(self) -> None:
        """Waits until they have ended by themselves."""
        for process in self.processes:
            process.join()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def wait_for(pipe: Connection, words: str) -> str:
    line = ""
    while words not in line:
        try:
            line = pipe.recv()
        except EOFError:
            raise SystemExit(f"a process ended before it said {words!r}") from None
        print(line, flush=True)
    return line


def main() -> None:
    processes = multiprocessing.get_context("forkserver")
    # Torch takes long to import; the processes are forks of one that has done it, optimizers included.
    processes.set_forkserver_preload(["torch._dynamo", "torch.distributed.fsdp", "ccl.torch"])
    sites: dict[str, Site] = {}
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, tempfile.TemporaryDirectory() as at:
        try:
            for name in ("east", "west"):
                sites[name] = Site(processes, master.address, f"{at}/{name} 0", 2)
            for site in sites.values():
                site.wait_for("step 3 ")
            losses = [("east", [0]), ("west", [1]), ("east", [0, 1])]
            for joins, (name, shards) in enumerate(losses, start=1):
                sites[name].lose(shards)
                print(f"killed {len(shards)} of {SHARDS} processes in the {name}", flush=True)
                sites["west" if name == "east" else "east"].wait_for("sites 1 ")  # trains on
                sites[name] = Site(processes, master.address, f"{at}/{name} {joins}", 1)
                for site in sites.values():
                    site.wait_for(f"sites 2 joins {joins} ")
            digests = [[line.split()[-1] for line in site.wait_for("done")] for site in sites.values()]
            for site in sites.values():
                site.join()
            assert digests[0] == digests[1], f"the shards differ: {digests}"
            print(f"both sites have the shards {' '.join(digests[0])}")
        finally:
            for site in sites.values():
                site.end()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
