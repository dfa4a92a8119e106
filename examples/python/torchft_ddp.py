"""torchft's DistributedDataParallel on a group of ccl: `python torchft_ddp.py`.

Starts a master of ccl, a lighthouse of torchft and two replicas on this machine, kills the first replica
while it trains, and starts it again: it gets the weights of the other one, and both end with the same.

Usually the two are `ccl master` and `torchft_lighthouse --min_replicas 1`, and each replica is started on
its machine by `python torchft_ddp.py MASTER LIGHTHOUSE NUMBER`, for instance `python torchft_ddp.py
first-machine:48148 http://first-machine:29510 0`.
"""

import hashlib
import multiprocessing
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import torch
import torch.distributed as dist
from torchft import DistributedDataParallel, Manager, Optimizer
from torchft.coordination import LighthouseServer

import ccl
import ccl.torch

REPLICAS = 2
#: Steps that the run makes after all replicas have joined.
STEPS = 30
#: How long a replica waits for another one, at most.
TIMEOUT = timedelta(seconds=10)


def make_group(master: str) -> dist.ProcessGroup:
    """A group without members until torchft's manager sets them."""
    ccl.torch.use_master(master)
    dist.init_process_group(
        "ccl",
        store=dist.HashStore(),
        rank=0,
        world_size=1,
        timeout=TIMEOUT,
        enable_reconfigure=True,
    )
    assert dist.group.WORLD is not None
    return dist.group.WORLD


def train(master: str, lighthouse: str, number: int, say: Callable[[str], None] = print) -> None:
    torch.manual_seed(number)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def load(state: dict[str, dict[str, object]]) -> None:
        model.load_state_dict(state["model"])
        sgd.load_state_dict(state["optimizer"])

    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=make_group(master),
        load_state_dict=load,
        state_dict=lambda: {"model": model.state_dict(), "optimizer": sgd.state_dict()},
        min_replica_size=1,
        timeout=TIMEOUT,
        rank=0,
        world_size=1,
        store_addr="localhost",
        store_port=store.port,
        lighthouse_addr=lighthouse,
        replica_id=f"replica{number}",
    )
    replica = DistributedDataParallel(manager, model)
    optimizer = Optimizer(manager, sgd)
    end = None
    while end is None or manager.current_step() < end:
        optimizer.zero_grad()  # starts a quorum; a newcomer gets the weights meanwhile
        inputs = torch.randn(64, 8)
        loss = torch.nn.functional.mse_loss(replica(inputs), inputs.sum(1, keepdim=True).sin())
        loss.backward()  # averages over the replicas in the step
        optimizer.step()  # skipped if one of them was lost
        step, world = manager.current_step(), manager.num_participants()
        say(f"step {step} replica {number} replicas {world} loss {loss:.4f}")
        if world < REPLICAS:
            end = None
        elif end is None:
            end = step + STEPS
        time.sleep(0.05)  # Without it, steps are too short to watch.
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:16]
    say(f"done replica {number} step {step} digest {digest}")
    manager.shutdown(wait=False)
    dist.destroy_process_group()


def tell(pipe: Connection, master: str, lighthouse: str, number: int) -> None:
    """Runs `train` in a child of `main`, which prints its lines."""
    train(master, lighthouse, number, pipe.send)


class Replica:
    def __init__(
        self, processes: ForkServerContext, master: str, lighthouse: str, number: int
    ) -> None:
        self.pipe, theirs = processes.Pipe(duplex=False)
        self.process = processes.Process(target=tell, args=(theirs, master, lighthouse, number))
        self.process.start()
        theirs.close()

    def wait_for(self, words: str) -> str:
        """Returns its next line with these words; prints all lines up to it."""
        line = ""
        while words not in line:
            try:
                line = self.pipe.recv()
            except EOFError:
                raise SystemExit(f"a replica ended before it said {words!r}") from None
            print(line, flush=True)
        return line


def main() -> None:
    processes = multiprocessing.get_context("forkserver")
    # Torch takes long to import, so replicas are forks of a process that has done it.
    processes.set_forkserver_preload(["torch._dynamo", "torchft", "ccl.torch"])
    replicas: list[Replica] = []
    lighthouse = LighthouseServer(bind="[::]:0", min_replicas=1, heartbeat_timeout_ms=1_000)
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        try:
            places = (processes, master.address, lighthouse.address())
            replicas = [Replica(*places, number) for number in range(REPLICAS)]
            for replica in replicas:
                replica.wait_for("replicas 2")
            victim, survivor = replicas
            victim.process.kill()
            print("killed the first replica", flush=True)
            survivor.wait_for("replicas 1")
            replicas.append(Replica(*places, 0))
            digests = {replica.wait_for("done").split()[-1] for replica in replicas[1:]}
            assert len(digests) == 1, f"the weights differ: {digests}"
            print(f"both replicas have the weights {digests.pop()}")
        finally:
            for replica in replicas:
                replica.process.kill()
                replica.process.join()
            lighthouse.shutdown()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
