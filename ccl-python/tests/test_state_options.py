"""The options of a sync, and its results."""

from pathlib import Path
from typing import Any

import ccl
import numpy as np
import pytest
from peers import run


def hide(communicator: ccl.Communicator) -> None:
    rank = communicator.rank
    entries: dict[str, Any] = {"one": np.zeros(1000), "two": np.zeros(1000), "step": 0}
    state = ccl.SharedState(entries)

    def sync(touched: list[str] | None) -> ccl.SyncInfo:
        state.revision += 1
        return communicator.sync(state, touched=touched)

    sync([])  # There are no hashes yet, so everything is hashed.
    entries["one"][3] = entries["two"][3] = rank
    entries["step"] = rank
    sync(["one"])
    assert entries["one"][3] == 0 and entries["step"] == 0, "a number is never hidden"
    assert entries["two"][3] == rank, "hidden by the hint"
    entries["two"] = entries["two"].copy()
    state.root()
    sync([])
    assert entries["two"][3] == rank, "hidden still"
    sync(None)
    assert entries["two"][3] == 0
    with pytest.raises(ccl.InvalidArgument, match="touched: there is no entry 'three'"):
        sync(["three"])
    with pytest.raises(TypeError, match="touched is one text"):
        communicator.sync(state, touched="one")
    entries["three"] = np.full(9, rank)
    state.revision = 5
    assert communicator.sync(state, touched=[]).revision == 5
    assert not entries["three"].any(), "of other entries nothing is known"


def test_a_hint_spares_hashing_and_a_full_sync_sees_what_it_hid() -> None:
    run(2, hide)


def forget(communicator: ccl.Communicator, folder: Path) -> None:
    rank = communicator.rank
    values = np.zeros(1000)
    state = ccl.SharedState({"values": values}, revision=1)
    communicator.sync(state)
    state.save(folder / str(rank))
    values[:] = rank
    assert state.load(folder / str(rank))
    values[:] = rank
    state.revision = 2
    communicator.sync(state, touched=[], hash_threads=1)
    assert not values.any(), "a checkpoint was loaded since, so everything is hashed"


def test_a_loaded_state_is_hashed_whole(tmp_path: Path) -> None:
    run(2, forget, tmp_path)


def mark(communicator: ccl.Communicator) -> None:
    rank = communicator.rank
    values = np.full(1000, 2.0 - rank)
    state = ccl.SharedState({"values": values}, revision=7)
    if rank == 0:
        state.mark_mixed()
        assert not state.is_usable
        with pytest.raises(ccl.InvalidUsage, match="mixture"):
            state.save("nowhere")
    info = communicator.sync(state)
    assert (values == 1.0).all() and state.is_usable, "rank 0 would have won the tie"
    assert info.attempts == 1 and info.op == "sync 0 of the shared state"
    assert communicator.counters().lanes >= 1


def test_a_mixture_only_receives_and_infos_tell_name_and_attempts() -> None:
    run(2, mark)


def begin_anew(communicator: ccl.Communicator) -> None:
    values = np.full(1000, 1.0)
    state = ccl.SharedState({"values": values}, revision=5)
    communicator.sync(state)
    state.mark_mixed()
    with pytest.raises(ccl.StateMismatch, match="begin_anew") as caught:
        communicator.sync(state, restore=True)
    assert caught.value.fault == "no_source"
    values[:] = 2.0
    state.begin_anew()
    assert state.is_usable and state.revision == 0
    assert communicator.sync(state, touched=[], restore=True).revision == 0
    assert (values == 2.0).all() and state.is_usable


def test_members_that_have_lost_everything_begin_anew() -> None:
    run(2, begin_anew)


def test_the_newest_checkpoint_is_known_without_loading_it(tmp_path: Path) -> None:
    assert ccl.newest_checkpoint(tmp_path / "none") is None
    values = np.arange(9)
    state = ccl.SharedState({"values": values}, revision=3)
    state.save(tmp_path)
    root = state.root()
    values += 1
    state.revision = 4
    [older] = tmp_path.glob("*.safetensors")
    newer = state.save(str(tmp_path))
    newest = ccl.newest_checkpoint(str(tmp_path))
    assert newest is not None and (newest.revision, newest.root) == (4, state.root())
    newer.write_bytes(b"cut off")
    newest = ccl.newest_checkpoint(tmp_path)
    assert newest is not None and (newest.revision, newest.root) == (3, root)
    older.unlink()
    with pytest.raises(ccl.InvalidArgument, match=newer.name):
        ccl.newest_checkpoint(tmp_path)


def test_unknown_options_of_a_sync_are_refused() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            state = ccl.SharedState({"values": np.zeros(3)})
            with pytest.raises(TypeError, match="unexpected keyword argument 'restored'"):
                communicator.sync(state, restored=True)  # type: ignore[call-arg]
            communicator.sync(state, strategy="send_only", restore=True, deadline=9, touched=None)
