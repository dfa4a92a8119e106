"""Torch's own tests of a backend, on gloo and on ccl: which pass, fail, are skipped, or hang.

    python tests/torch_suite.py [--world 3] [--bound 120] [--log FOLDER] [-k PART]... [BACKEND...]

The tests are `torch.testing._internal.distributed.distributed_test` of torch's wheel. What they do only
for gloo, they also do for ccl; those that need GPUs or more ranks are skipped. Each test has its own
master, and its ranks are forks of a single-threaded process that has imported torch. The exit status is
1 if a test hangs on a backend, or passes only on gloo and is not listed in `REFUSED`.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time
import types
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ccl

SUITE = "torch.testing._internal.distributed.distributed_test"
BACKENDS = ["gloo", "ccl"]


def main() -> int:
    arguments = parse()
    if arguments.run is not None:
        run_backend(arguments)
        return 0
    results = {backend: start_backend(backend, arguments) for backend in arguments.backends}
    return report(results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("backends", nargs="*", default=BACKENDS)
    parser.add_argument("--world", type=int, default=3, help="ranks of each test")
    parser.add_argument("--bound", type=int, default=120, help="seconds after which a test hangs")
    parser.add_argument("--log", type=Path, default=Path("target/torch-suite"))
    parser.add_argument("-k", dest="parts", action="append", default=[], help="part of a name")
    parser.add_argument("--run", choices=BACKENDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def start_backend(backend: str, arguments: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Runs all tests in a separate process, since the suite reads the backend's name at import."""
    options = ["--world", str(arguments.world), "--bound", str(arguments.bound)]
    options += ["--log", str(arguments.log), "--run", backend]
    for part in arguments.parts:
        options += ["-k", part]
    environment = dict(os.environ, BACKEND=backend, WORLD_SIZE=str(arguments.world))
    environment.setdefault("OMP_NUM_THREADS", "1")
    subprocess.run([sys.executable, __file__, *options], env=environment, check=True)
    lines = (arguments.log / f"{backend}.jsonl").read_text().splitlines()
    return {name: (how, why) for name, how, why, _seconds in map(json.loads, lines)}


def run_backend(arguments: argparse.Namespace) -> None:
    suite = case(arguments.run, arguments.bound)
    folder: Path = arguments.log / arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    names = unittest.TestLoader().getTestCaseNames(suite)
    with open(arguments.log / f"{arguments.run}.jsonl", "w") as results:
        for name in names:
            if arguments.parts and not any(part in name for part in arguments.parts):
                continue
            begin = time.monotonic()
            with output_in(folder / f"{name}.log"):
                how, why = run_test(suite, name)
            seconds = time.monotonic() - begin
            print(f"{arguments.run:5} {how:5} {seconds:6.1f} s  {name}  {why}"[:160], flush=True)
            print(json.dumps([name, how, why, seconds]), file=results, flush=True)


def run_test(suite: type[unittest.TestCase], name: str) -> tuple[str, str]:
    result = unittest.TestResult()
    suite(name).run(result)
    for _, why in result.skipped:
        return "skip", why
    for _, why in [*result.errors, *result.failures]:
        print(why, flush=True)
        last = why.strip().splitlines()[-1]
        return ("hang" if "terminated or timed out" in why else "fail"), last
    return "pass", ""


def case(backend: str, bound_seconds: int) -> type[unittest.TestCase]:
    """The suite as a test case, built as in torch's `test_distributed_spawn.py`."""
    from torch.testing._internal import common_distributed

    import ccl.torch

    for names in common_distributed.DistTestCases.backend_feature.values():
        if "gloo" in names:
            names.add("ccl")
    common_distributed.DistTestCases.backend_feature["plugin"].add("ccl")
    setattr(common_distributed, "get_timeout", lambda _test: bound_seconds)
    module = suite_module()

    class Suite(module.TestDistBackend, module.DistributedTest._DistTestBase):  # type: ignore[misc, name-defined]
        def setUp(self) -> None:
            super().setUp()
            if backend == "ccl":
                self.enterContext(own_master())
            self._start_processes(multiprocessing.get_context("fork").Process)

        def tearDown(self) -> None:
            for process in self.processes:
                process.kill()
                process.join()
            super().tearDown()

    return Suite


def suite_module() -> Any:
    """The module, patched to treat ccl like gloo."""
    spec = importlib.util.find_spec(SUITE)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    for gate, opened in [
        ('BACKEND != "gloo"', 'BACKEND not in ("gloo", "ccl")'),
        ('BACKEND == "gloo"', 'BACKEND in ("gloo", "ccl")'),
        ('({"gloo"})', '({"gloo", "ccl"})'),
    ]:
        assert gate in source, f"torch has changed its suite: there is no {gate}"
        source = source.replace(gate, opened)
    module = types.ModuleType(SUITE)
    module.__file__ = spec.origin
    sys.modules[SUITE] = module
    exec(compile(source, spec.origin, "exec"), module.__dict__)
    return module


@contextmanager
def own_master() -> Iterator[None]:
    """A master in a separate process, and its address for the ranks."""
    import ccl.torch

    processes = multiprocessing.get_context("fork")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=run_master, args=(theirs,), daemon=True)
    process.start()
    try:
        ccl.torch.use_master(ours.recv())
        yield
    finally:
        process.kill()
        process.join()


def run_master(pipe: Connection) -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        pipe.send(master.address)
        pipe.poll(None)


@contextmanager
def output_in(path: Path) -> Iterator[None]:
    """Redirects the output of this process and its children."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with open(path, "w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


def report(results: dict[str, dict[str, tuple[str, str]]]) -> int:
    names = sorted({name for of_backend in results.values() for name in of_backend})
    print(f"\n{'':64}" + "".join(f"{backend:>7}" for backend in results))
    for name in names:
        ends = [of_backend.get(name, ("-", "")) for of_backend in results.values()]
        if {how for how, _ in ends} - {"skip"}:
            print(f"{name:64}" + "".join(f"{how:>7}" for how, _ in ends))
    for how in ["pass", "fail", "hang", "skip"]:
        counts = [sum(end == how for end, _ in found.values()) for found in results.values()]
        print(f"{how:64}" + "".join(f"{count:>7}" for count in counts))
    hangs = [how for found in results.values() for how, _ in found.values() if how == "hang"]
    return 1 if hangs else 0


if __name__ == "__main__":
    sys.exit(main())
