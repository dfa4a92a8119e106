"""FSDP2 inside each site, ccl between the sites: `python fsdp_sites.py`.

Two sites of two processes each train one model on this machine. Inside a site FSDP2 shards it over the
site's own torch world (gloo here). Between the sites, shard i of every site is one ccl peer group, which
averages what the sites learned since the last outer step (DiLoCo). One site is killed and started again;
it gets the state of the other, and at the end both sites have the same shards.
"""

import hashlib
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import ccl

SHARDS = 2
INNER_STEPS = 10
#: The run ends so many outer steps after a site joined.
OUTER_STEPS = 5


class Outer:
    """Nesterov's method on the averaged difference of an outer step, shard by shard."""

    def __init__(self, model: torch.nn.Module) -> None:
        # Shards as plain tensors. On the CPU `to_local` shares their memory, hence the clones.
        self.shards = [parameter.to_local().detach() for parameter in model.parameters()]
        self.anchors = [shard.clone() for shard in self.shards]
        self.momenta = [torch.zeros_like(shard) for shard in self.shards]

    def step(self, comm: ccl.Communicator) -> None:
        pairs = zip(self.anchors, self.shards, strict=True)
        deltas = [anchor - shard for anchor, shard in pairs]
        # A site that dies costs its share of the average; the call is repeated without it.
        comm.all_reduce_many(deltas, "avg", attempts=16)
        for delta, anchor, momentum in zip(deltas, self.anchors, self.momenta, strict=True):
            momentum.mul_(0.9).add_(delta)
            anchor.sub_(delta.add(momentum, alpha=0.9), alpha=0.7)
        self.restart()

    def restart(self) -> None:
        """The sites go on from the same weights."""
        for anchor, shard in zip(self.anchors, self.shards, strict=True):
            shard.copy_(anchor)

    def share(self, comm: ccl.Communicator, step: int) -> int:
        """Gives all sites the state of the oldest one; its step."""
        for tensor in [*self.anchors, *self.momenta]:
            comm.broadcast(tensor)
        self.restart()
        return int(comm.all_gather_scalars([step])[0][0])


def admit(comm: ccl.Communicator) -> None:
    """Lets newcomers in, to all shards' groups or to none: a site has to join as a whole."""
    while True:
        sizes = torch.tensor([len(comm.update_topology().members)] * 2)
        sizes[1] = -sizes[1]
        dist.all_reduce(sizes, op=dist.ReduceOp.MAX)  # inside the site
        if sizes[0] == -sizes[1]:
            return


def train(master: str, store: str, shard: int, initial_world_size: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=shard, world_size=SHARDS)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)]
    model = fully_shard(torch.nn.Sequential(*layers))
    inner = torch.optim.AdamW(model.parameters(), 3e-3)
    outer = Outer(model)
    with ccl.Communicator(master, group=shard, initial_world_size=initial_world_size) as comm:
        source = torch.Generator().manual_seed(comm.peer)
        step = outer.share(comm, 0)
        end = step + OUTER_STEPS if step > 0 else None  # None: no site has joined the run yet
        while end is None or step < end:
            for _ in range(INNER_STEPS):
                inputs = torch.randn(64, 8, generator=source)
                loss = (model(inputs) - inputs.sum(1, keepdim=True).sin()).square().mean()
                inner.zero_grad()
                loss.backward()
                inner.step()
            outer.step(comm)
            step += 1
            print(f"step {step} shard {shard} sites {comm.world_size} loss {loss:.4f}", flush=True)
            time.sleep(0.1)  # This network is too small to watch otherwise.
            before = set(comm.view.members)
            admit(comm)
            if set(comm.view.members) - before:
                step = outer.share(comm, step)
                end = step + OUTER_STEPS
        data = b"".join(shard.numpy().tobytes() for shard in outer.shards)
        print(f"done shard {shard} digest {hashlib.sha256(data).hexdigest()[:16]}", flush=True)
        comm.barrier()
    dist.destroy_process_group()


Site = list["subprocess.Popen[str]"]


def start(master: str, folder: str, name: str, initial_world_size: int) -> Site:
    arguments = [sys.executable, __file__, master, f"{folder}/{name}"]
    return [
        subprocess.Popen(
            [*arguments, str(shard), str(initial_world_size)], stdout=subprocess.PIPE, text=True
        )
        for shard in range(SHARDS)
    ]


def read_until(site: Site, word: str) -> list[str]:
    """The last word of each process's first line that begins so."""
    found = []
    for process in site:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
            if line.startswith(word):
                found.append(line.split()[-1])
                break
        else:
            raise SystemExit(f"a process ended before it said {word!r}")
    return found


def main() -> None:
    sites: list[Site] = []
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master, tempfile.TemporaryDirectory() as at:
        try:
            sites = [start(master.address, at, name, 2) for name in ("east", "west")]
            for site in sites:
                read_until(site, "step 3 ")
            for process in sites[0]:
                process.kill()
            print("killed a site", flush=True)
            sites.append(start(master.address, at, "east again", 1))
            digests = [read_until(site, "done") for site in sites[1:]]
            assert digests[0] == digests[1], f"the shards differ: {digests}"
            print(f"both sites have the shards {' '.join(digests[0])}")
        finally:
            for process in [process for site in sites for process in site]:
                process.kill()
                process.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
