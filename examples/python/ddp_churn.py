"""DistributedDataParallel on a run that peers leave and join: `python ddp_churn.py`.

Starts a master and three workers on this machine, kills the first worker (torch's would-be rank 0) while
it trains, and lets a newcomer take its place. Whoever is there at the end has the same weights.

Usually the master is `ccl master` on some machine, and each worker is started there by
`python ddp_churn.py HOST:PORT`.
"""

import hashlib
import subprocess
import sys
import time

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


def train(master: str, initial_world_size: int) -> None:
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
        print(f"step {step} peer {comm.peer} world {comm.world_size} loss {loss:.4f}", flush=True)
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
    print(f"done peer {comm.peer} world {comm.world_size} digest {digest}", flush=True)
    dist.destroy_process_group()


def start(master: str, initial_world_size: int) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, master, str(initial_world_size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_until(worker: "subprocess.Popen[str]", word: str) -> str:
    assert worker.stdout is not None
    for line in worker.stdout:
        print(line, end="")
        if line.startswith(word):
            return line
    raise SystemExit(f"a worker ended before it said {word!r}")


def main() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        workers = [start(master.address, WORKERS) for _ in range(WORKERS)]
        try:
            for worker in workers:
                read_until(worker, "step 10 ")
            victim, *survivors = workers
            victim.kill()
            print("killed the first worker", flush=True)
            workers.append(start(master.address, 1))
            digests = {read_until(worker, "done").split()[-1] for worker in [*survivors, workers[-1]]}
            assert len(digests) == 1, f"the weights differ: {digests}"
            print(f"all {len(workers) - 1} workers have the weights {digests.pop()}")
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    else:
        main()
