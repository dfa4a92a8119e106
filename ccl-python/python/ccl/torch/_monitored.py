"""A barrier that names the ranks that do not reach it, using the store of the rendezvous."""

import time
from datetime import timedelta

import torch.distributed as dist

import ccl


class MonitoredBarriers:
    """The monitored barriers of one group. All ranks call them in the same order."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:  # type: ignore[name-defined]
        self._store = store
        self._rank = rank
        self._size = size
        self._calls = 0

    def wait(self, timeout: timedelta, wait_all_ranks: bool) -> None:
        """Rank 0 waits for the others, and they wait for rank 0. Error texts are those of torch's gloo."""
        key = f"ccl/monitored barrier {self._calls}"
        self._calls += 1
        if timeout <= timedelta(0):
            raise ccl.Timeout(f"Rank {self._rank} timed out in monitoredBarrier after 0 ms.")
        if self._rank == 0:
            missing = self._missing(key, timeout, wait_all_ranks)
            self._store.set(f"{key}/end", "failed" if missing else "passed")
            if missing:
                noun = "Rank" if len(missing) == 1 else "Ranks"
                ranks = ", ".join(map(str, missing))
                milliseconds = timeout // timedelta(milliseconds=1)
                raise ccl.Timeout(f"{noun} {ranks} failed to pass monitoredBarrier in {milliseconds} ms")
            return
        self._store.set(f"{key}/{self._rank}", "here")
        # Rank 0 may use the whole timeout before it reports.
        if not self._comes(f"{key}/end", 2 * timeout) or self._store.get(f"{key}/end") != b"passed":
            raise ccl.Timeout(
                f"Rank {self._rank} successfully reached monitoredBarrier, but received errors while waiting for "
                "send/recv from rank 0. Please check rank 0 logs for faulty rank."
            )

    def _missing(self, key: str, timeout: timedelta, wait_all_ranks: bool) -> list[int]:
        end = time.monotonic() + timeout.total_seconds()
        missing = []
        for rank in range(1, self._size):
            left = timedelta(seconds=max(end - time.monotonic(), 0.001))
            if not self._comes(f"{key}/{rank}", left):
                missing.append(rank)
                if not wait_all_ranks:
                    break
        return missing

    def _comes(self, key: str, timeout: timedelta) -> bool:
        try:
            self._store.wait([key], timeout)
        except (dist.DistError, RuntimeError):
            return False
        return True
