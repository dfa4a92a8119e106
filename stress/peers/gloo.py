"""One rank of an all-reduce of gloo for `ccl bench compare`: gloo.py RANK WORLD_SIZE ADDRESS.

The process group is used without the Python functions of torch.distributed around it, which only add time.
docs/performance.md describes orders and answers.
"""

import json
import os
import sys
import time
from datetime import timedelta

# As torchrun does; to be set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.distributed as dist

TIMEOUT = timedelta(seconds=300)
# What a rank contributes: its rank and a pattern, whose sums are exact.
PATTERN = (torch.arange(251 * 1000) % 251).to(torch.float32)


def answer(value):
    print(json.dumps({"Ok": value}), flush=True)


def status_bytes(field):
    with open("/proc/self/status") as status:
        lines = [line for line in status if line.startswith(field)]
    return int(lines[0].split()[1]) * 1024


def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def fill(tensor, rank):
    for part in tensor.split(PATTERN.numel()):
        part.copy_(PATTERN[: part.numel()])
        part.add_(rank)


def count_wrong(result, world_size):
    expected = PATTERN * world_size + world_size * (world_size - 1) // 2
    parts = result.split(PATTERN.numel())
    return sum(int((part != expected[: part.numel()]).sum()) for part in parts)


class Rank:
    def __init__(self, rank, world_size, address):
        self.rank = rank
        self.world_size = world_size
        if rank == 0:
            store = dist.TCPStore(address, 0, world_size, True, TIMEOUT, wait_for_workers=False)
            answer(store.port)
        else:
            host, port = sys.stdin.readline().split()
            store = dist.TCPStore(host, int(port), world_size, False, TIMEOUT)
        options = dist.ProcessGroupGloo._Options()
        options._timeout = TIMEOUT
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
        self.group = dist.ProcessGroupGloo(store, rank, world_size, options)
        self.group.barrier().wait()
        # Loads what does not belong to gloo, before its memory is counted.
        fill(PATTERN.clone(), 0)
        count_wrong(PATTERN.clone(), world_size)
        self.idle_bytes = status_bytes("VmRSS:")

    def measure(self, count, in_place, warmup, iterations, check):
        send = torch.empty(count, dtype=torch.float32)
        fill(send, self.rank)
        # Gloo reduces in place only: out of place, its caller copies.
        result = send if in_place else torch.full_like(send, float("nan"))
        tensors = [result]

        def call():
            if not in_place:
                result.copy_(send)
            self.group.allreduce(tensors).wait()

        reset_peak()
        wrong = 0
        for turn in range(warmup):
            call()
            if turn == 0 and check:
                wrong = count_wrong(result, self.world_size)
        self.group.barrier().wait()
        iteration_ns = []
        cpu_ns, last = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(iterations):
            call()
            now = time.perf_counter_ns()
            iteration_ns.append(now - last)
            last = now
        cpu_ns = time.process_time_ns() - cpu_ns
        buffers = 4 * count * (1 if in_place else 2)
        extra = status_bytes("VmHWM:") - self.idle_bytes - buffers
        return {
            "iteration_ns": iteration_ns,
            "cpu_ns": cpu_ns,
            "extra_rss_bytes": max(0, extra),
            "wrong": wrong,
        }


def main():
    rank = Rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    answer(f"gloo of torch {torch.__version__}")
    for line in sys.stdin:
        count, in_place, warmup, iterations, check = (int(word) for word in line.split())
        answer([rank.measure(count, in_place != 0, warmup, iterations, check != 0)])


try:
    main()
except Exception as error:
    print(json.dumps({"Err": " ".join(str(error).split())}), flush=True)
    sys.exit(1)
