"""DistributedDataParallel on a run that peers leave and join: `python ddp_churn.py`.

Starts a master and three workers on this machine, kills the first worker (torch's would-be rank 0) while
it trains, and lets a newcomer take its place. Whoever is there at the end has the same weights.

Usually the master is `ccl master` on some machine, and each worker is started there by
`python ddp_churn.py HOST:PORT`.
"""

import hashlib
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import ccl
import ccl.torch

WORKERS = 3
#: The run ends so many steps after a newcomer joined.
STEPS = 30


def sync(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> int:
    """Gives all members the state of the oldest one; the steps done so far."""
    state = ccl.torch.share((step, model.state_dict(), optimizer.state_dict()))
    step, weights, momenta = state
    model.load_state_dict(weights)
    optimizer.load_state_dict(momenta)
    return step


def train(master: str, initial_world_size: int, say: Callable[[str], None] = print) -> None:
    url = f"ccl://{master}?initial_world_size={initial_world_size}"
    dist.init_process_group("ccl", init_method=url)
    comm = ccl.torch.communicator()
    torch.manual_seed(comm.peer)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    view = comm.view
    step = sync(model, optimizer, 0)
    replica = DistributedDataParallel(model, init_sync=False)  # `sync` has done it
    end = step + STEPS if step > 0 else None  # None: nobody has joined the run yet
    while end is None or step < end:
        inputs = torch.randn(64, 8)
        loss = torch.nn.functional.mse_loss(replica(inputs), inputs.sum(1, keepdim=True).sin())
        optimizer.zero_grad()
        loss.backward()  # averages over whoever is there; a death costs nothing but its share
        optimizer.step()
        step += 1
        say(f"step {step} peer {comm.peer} world {comm.world_size} loss {loss:.4f}")
        time.sleep(0.05)  # This network is too small to watch otherwise.
        before, view = view, ccl.torch.update_topology()  # newcomers enter here
        if set(view.members) - set(before.members):
            step = sync(model, optimizer, step)
            end = step + STEPS
            # DDP learns in its second step how to group gradients; all must begin with it anew.
            del replica
            replica = DistributedDataParallel(model, init_sync=False)
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:16]
    say(f"done peer {comm.peer} world {comm.world_size} digest {digest}")
    dist.destroy_process_group()


def tell(pipe: Connection, master: str, initial_world_size: int) -> None:
    """`train` in a process of `main`, which prints what it says."""
    train(master, initial_world_size, pipe.send)


class Worker:
    def __init__(self, processes: ForkServerContext, master: str, initial_world_size: int) -> None:
        self.pipe, theirs = processes.Pipe(duplex=False)
        self.process = processes.Process(target=tell, args=(theirs, master, initial_world_size))
        self.process.start()
        theirs.close()

    def wait_for(self, words: str) -> str:
        """Its next line with these words. All lines are printed."""
        line = ""
        while words not in line:
            try:
                line = self.pipe.recv()
            except EOFError:
                raise SystemExit(f"a worker ended before it said {words!r}") from None
            print(line, flush=True)
        return line


def main() -> None:
    processes = multiprocessing.get_context("forkserver")
    # Torch takes long to import; the workers are forks of one that has done it, optimizers included.
    processes.set_forkserver_preload(["torch._dynamo", "ccl.torch"])
    workers: list[Worker] = []
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        try:
            workers = [Worker(processes, master.address, WORKERS) for _ in range(WORKERS)]
            for worker in workers:
                worker.wait_for("step 10 ")
            victim, *survivors = workers
            victim.process.kill()
            print("killed the first worker", flush=True)
            workers.append(Worker(processes, master.address, 1))
            digests = {worker.wait_for("done").split()[-1] for worker in [*survivors, workers[-1]]}
            assert len(digests) == 1, f"the weights differ: {digests}"
            print(f"all {len(workers) - 1} workers have the weights {digests.pop()}")
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.join()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    else:
        main()
