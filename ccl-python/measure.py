"""What the binding costs: torch all_reduce beside `ccl bench`, interleaved; `python measure.py CCL`.

CCL is the release build of the `ccl` command. Each round measures both, one right after the other, with the
same settings: two processes of this machine, 64 MiB of float32, out of place. Prints the medians over rounds
of the ratios of time and of CPU time per byte (of the peers; the bench counts its master too), and how much
memory a Python peer holds beyond its tensors and what `import ccl, torch` takes.
"""

import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

import ccl

WORLD = 2
BYTES = 64 << 20
WARMUP = 4
ITERATIONS = 16
ROUNDS = 15


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peer(pipe: Connection, address: str) -> None:
    imported = peak_bytes()
    settings: dict[str, Any] = {"initial_world_size": WORLD, "lanes": 1}
    with ccl.Communicator(address, **settings) as comm:
        tensor, result = torch.ones(BYTES // 4), torch.zeros(BYTES // 4)
        for _ in range(WARMUP):
            comm.all_reduce(tensor, out=result)
        comm.barrier()
        cpu, start = cpu_seconds(), time.perf_counter()
        for _ in range(ITERATIONS):
            comm.all_reduce(tensor, out=result)
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
        assert result.eq(WORLD).all()
        comm.barrier()
    pipe.send((seconds / ITERATIONS, cpu / ITERATIONS, peak_bytes() - imported - 2 * BYTES))


def measure_python() -> tuple[float, float, int]:
    context = multiprocessing.get_context("spawn")
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        pipes, processes = [], []
        for _ in range(WORLD):
            ours, theirs = context.Pipe()
            process = context.Process(target=peer, args=(theirs, master.address))
            process.start()
            pipes.append(ours)
            processes.append(process)
        results = [pipe.recv() for pipe in pipes]
        for process in processes:
            process.join()
    times, cpus, extras = zip(*results, strict=True)
    return max(times), sum(cpus), max(extras)


def measure_bench(command: str) -> tuple[float, float]:
    arguments = "bench all-reduce --sizes 64MiB --json --repeat 1".split()
    counts = ["--world", str(WORLD), "--iters", str(ITERATIONS), "--warmup", str(WARMUP)]
    ended = subprocess.run(
        [command, *arguments, *counts, "--lanes", "1"], check=True, capture_output=True, text=True
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["wrong"] == 0
    return found["time_us"] / 1e6, found["cpu_s_per_gib"] * BYTES / 2**30


def main() -> None:
    times, cpus, extras = [], [], []
    for number in range(ROUNDS):
        # Whoever comes second finds the machine as the first left it: take turns.
        if number % 2 == 0:
            bench, python = measure_bench(sys.argv[1]), measure_python()
        else:
            python, bench = measure_python(), measure_bench(sys.argv[1])
        times.append(python[0] / bench[0])
        cpus.append(python[1] / bench[1])
        extras.append(python[2] / 2**20)
        print(
            f"bench {bench[0] * 1e3:.1f} ms, {bench[1] * 1e3:.1f} ms CPU; "
            f"Python {python[0] * 1e3:.1f} ms, {python[1] * 1e3:.1f} ms CPU, {extras[-1]:.1f} MiB",
            flush=True,
        )
    for name, ratios in {"time": times, "CPU": cpus}.items():
        print(f"{name}: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"memory beyond tensors and imports: at most {max(extras):.1f} MiB")


if __name__ == "__main__":
    main()
