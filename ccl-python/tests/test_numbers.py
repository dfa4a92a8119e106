"""Python numbers in a shared state: written back with the same bits, or not without an error."""

import math
import threading
from pathlib import Path
from typing import Any

import ccl
import numpy as np
import pytest
from peers import HANG_SECONDS, run


class Stubborn(dict[str, Any]):
    """A dict that refuses one key."""

    is_open = False

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "step" and not self.is_open:
            raise PermissionError("step is not to be set")
        super().__setitem__(key, value)


def load_over(folder: Path, saved: Any, before: Any) -> Any:
    ccl.SharedState({"number": saved}, revision=1).save(folder)
    entries = {"number": before}
    assert ccl.SharedState(entries).load(folder)
    return entries["number"]


def test_the_sign_of_zero_and_the_bits_of_nan_are_content(tmp_path: Path) -> None:
    assert math.copysign(1, load_over(tmp_path / "a", -0.0, 0.0)) == -1
    assert math.copysign(1, load_over(tmp_path / "b", 0.0, -0.0)) == 1
    odd_nan = np.frombuffer(np.uint64(0x7FF8_0000_0000_1234).tobytes(), np.float64)[0].item()
    loaded = load_over(tmp_path / "c", odd_nan, math.nan)
    assert np.float64(loaded).tobytes() == np.float64(odd_nan).tobytes()


def test_a_number_keeps_its_type_where_that_has_the_value(tmp_path: Path) -> None:
    for name, saved, before in [("a", 3, 1), ("b", 2.5, 1.0), ("c", False, True)]:
        loaded = load_over(tmp_path / name, saved, before)
        assert loaded == saved and type(loaded) is type(before)
    assert load_over(tmp_path / "d", 7, True) == 7, "no bool has it"


def level_zeros(communicator: ccl.Communicator) -> float:
    entries = {"zero": 0.0 if communicator.rank else -0.0}
    state = ccl.SharedState(entries, revision=0 if communicator.rank else 1)
    info = communicator.sync(state)
    assert info.root == state.root()
    return math.copysign(1, entries["zero"])


def test_members_end_with_the_same_zero() -> None:
    assert run(2, level_zeros) == [-1, -1]


def refuse(communicator: ccl.Communicator) -> None:
    rank = communicator.rank
    entries = Stubborn(step=rank, after=rank, weights=np.full(9, rank))
    state = ccl.SharedState(entries, revision=1 - rank)
    told = threading.Event()
    for is_async in [False, True]:
        if rank == 0:
            communicator.sync(state)
            continue
        with pytest.raises(PermissionError, match="not to be set") as caught:
            if is_async:
                handle = communicator.sync_async(state)
                handle.add_done_callback(told.set)
                handle.wait()
            else:
                communicator.sync(state)
        assert "'step'" in caught.value.__notes__[0]
        assert not state.is_usable, "the weights are of the others, the step is not"
    assert rank == 0 or told.wait(HANG_SECONDS)
    assert entries["after"] == 0 and not entries["weights"].any()
    entries.is_open = True
    assert communicator.sync(state).root == state.root()
    assert state.is_usable and entries["step"] == 0


def test_a_number_that_cannot_be_written_back_is_an_error_and_the_next_sync_mends_it() -> None:
    run(2, refuse)
