"""Shared state between real processes: members get the content that they lack, and nothing else moves."""

import threading
from array import array
from pathlib import Path
from typing import Any

import ccl
import numpy as np
import pytest
from peers import Pipe, connect, run, started

MIB = 1 << 20


def content(seed: int) -> dict[str, Any]:
    """Entries of many types and shapes, different for each seed."""
    numbers = np.random.default_rng(seed)
    return {
        "weights": numbers.standard_normal((1000, 700), dtype=np.float32),
        "mask": numbers.integers(0, 2, 77).astype(bool),
        "phases": numbers.standard_normal(6).view(np.complex128),
        "scale": np.array(float(seed)),
        "nothing": np.empty((0, 3), dtype=np.int16),
        "bytes": bytearray(numbers.bytes(1000)),
        "nested": {"counts": array("q", [seed, seed + 1]), "step": seed, "rate": seed / 8},
        "list": [numbers.integers(0, 99, (2, 3)), seed],
    }


def as_bits(value: Any) -> Any:
    """The contents that must be equal at the end, comparable with ``==``."""
    if isinstance(value, dict):
        return {key: as_bits(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_bits(inner) for inner in value]
    if isinstance(value, int | float):
        return (type(value).__name__, value)
    return bytes(memoryview(value)) if memoryview(value).nbytes else b""


def level(communicator: ccl.Communicator) -> dict[str, int]:
    rank = communicator.rank
    entries = content(1 if rank == 2 else 0)
    weights = entries["weights"]
    address = weights.ctypes.data
    state = ccl.SharedState(entries)
    assert state.revision == 0 and state.is_usable
    info = communicator.sync(state)
    assert as_bits(entries) == as_bits(content(0)), "two have it, one does not"
    assert entries["weights"] is weights and weights.ctypes.data == address, "in place"
    assert info.root == state.root() and len(info.root) == 64
    assert info.revision == 0 and len(info.members) == 3
    assert info.duration >= info.hashing > 0
    assert info.view.epoch == communicator.epoch
    if rank == 2:
        assert sum(info.sources.values()) <= info.received_bytes
        assert communicator.peer not in info.sources and set(info.sources) <= set(info.members)
    else:
        assert info.received_bytes == 0 and info.sources == {}
    return {"sent": info.sent_bytes, "received": info.received_bytes}


def test_who_differs_ends_with_the_bits_of_most() -> None:
    moved = run(3, level)
    assert moved[2]["received"] > 1000 * 700 * 4
    assert moved[0]["sent"] + moved[1]["sent"] > 1000 * 700 * 4
    assert moved[2]["sent"] == 0


def start_late(pipe: Pipe, address: str, is_newcomer: bool) -> tuple[str, int, Any]:
    entries = content(5 if is_newcomer else 3)
    state = ccl.SharedState(entries)
    with connect(address, 2) as communicator:
        if not is_newcomer:
            pipe.say(communicator.world_size)
            state.revision = 40
            communicator.sync(state)
            entries["nested"]["step"] += 1
            state.revision = 41
            while communicator.world_size < 3:
                communicator.update_topology()
        info = communicator.sync(state)
        communicator.barrier()
        return info.root, state.revision, as_bits(entries)


def test_a_newcomer_ends_with_the_bits_and_the_revision_of_the_others() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(2, start_late, master.address, False) as members:
            assert [member.receive() for member in members] == [2, 2]
            with started(1, start_late, master.address, True) as [newcomer]:
                root, revision, bits = newcomer.receive()
                assert [member.receive() for member in members] == [(root, revision, bits)] * 2
    expected = content(3)
    expected["nested"]["step"] += 1
    assert revision == 41 and bits == as_bits(expected)


def flip(communicator: ccl.Communicator) -> int:
    weights = np.arange(16 * MIB // 4, dtype=np.float32)
    state = ccl.SharedState([{"weights": weights}])
    assert state.names == ["0.weights"]
    communicator.sync(state)
    before = communicator.counters().received_bytes
    if communicator.rank == 0:
        weights.view(np.uint8)[5 * MIB] ^= 1
    info = communicator.sync(state)
    assert (weights == np.arange(16 * MIB // 4, dtype=np.float32)).all()
    assert communicator.counters().received_bytes - before < MIB
    return info.received_bytes


def test_a_flipped_bit_moves_less_than_a_mebibyte() -> None:
    received = run(3, flip)
    assert 256 << 10 <= received[0] < MIB and received[1:] == [0, 0]


def mistake(communicator: ccl.Communicator) -> tuple[int, int | None, str | None]:
    length = 5 if communicator.rank == 1 else 4
    array = np.full(length, 7.0)
    state = ccl.SharedState({"array": array})
    there = "the others" if communicator.rank == 1 else rf"peer \d+ \([^)]*\)"
    shapes = r"f64 of shape \[5\] here, but f64 of shape \[4\]"
    if communicator.rank != 1:
        shapes = r"f64 of shape \[4\] here, but f64 of shape \[5\]"
    words = rf'differ from those of the other members: .*"array" is {shapes} on {there}$'
    with pytest.raises(ccl.StateMismatch, match=words) as caught:
        communicator.sync(state)
    assert not isinstance(caught.value, ccl.Retryable) and isinstance(caught.value, ccl.Error)
    assert state.is_usable and (array == 7.0).all()
    assert caught.value.epoch == communicator.epoch and caught.value.op is not None
    assert caught.value.fault == "keys"
    right = ccl.SharedState({"array": np.full(4, float(communicator.rank))})
    info = communicator.sync(right)
    assert len(info.members) == 3
    return communicator.peer, caught.value.peer, caught.value.reason


def test_a_mismatch_names_the_odd_peer_and_the_next_sync_works() -> None:
    results = run(3, mistake)
    odd = results[1][0]
    assert [peer for _, peer, _ in results] == [odd] * 3
    assert f"peer {odd} " in str(results[0][2])


def choose(communicator: ccl.Communicator) -> None:
    rank = communicator.rank
    value = np.full(1000, float(rank))
    state = ccl.SharedState({"value": value, "own": np.full(9, rank)}, allow_inequality=["own"])
    info = communicator.sync(state, strategy="send_only" if rank == 1 else "receive_only")
    assert (value == 1.0).all(), "only rank 1 gives"
    assert rank == 1 or list(info.sources) == [communicator.view.members[1]]
    with pytest.raises(ccl.StateMismatch, match="no member has a consistent content") as caught:
        communicator.sync(state, strategy="receive_only")
    assert caught.value.peer is None and caught.value.fault == "no_source"
    state.revision = 0 if rank == 2 else 7  # too many to be evicted
    with pytest.raises(ccl.StateMismatch, match="call with restore on all members") as caught:
        communicator.sync(state)
    assert caught.value.fault == "revision_ahead"
    state.revision = 1
    if rank == 2:
        value[:] = 5
    assert communicator.sync(state).revision == 1 and (value == 1.0).all()


def test_strategies_and_revisions_are_obeyed() -> None:
    run(3, choose)


def lose_sealed(communicator: ccl.Communicator) -> None:
    value = np.full(1000, 1.0)
    state = ccl.SharedState({"value": value}, revision=8)
    communicator.sync(state)
    value[:] = 2.0
    state.revision = 3
    with pytest.raises(ccl.StateMismatch, match="restore") as caught:
        communicator.sync(state, restore=communicator.rank == 0)
    assert caught.value.fault == "revision_lost"
    assert communicator.sync(state, restore=True).revision == 3
    assert (value == 2.0).all()


def test_all_members_together_go_back_to_the_best_there_is() -> None:
    run(2, lose_sealed)


def test_unequal_entries_stay_and_unknown_ones_are_refused() -> None:
    run(2, keep_own)
    with pytest.raises(ccl.InvalidArgument, match="no entry 'b'"):
        ccl.SharedState({"a": bytearray(1)}, allow_inequality=["b"])
    with pytest.raises(TypeError, match="list of names"):
        ccl.SharedState({"a": bytearray(1)}, allow_inequality="a")


def keep_own(communicator: ccl.Communicator) -> None:
    entries: dict[str, Any] = {"same": np.full(9, communicator.rank), "own": communicator.rank}
    state = ccl.SharedState(entries, allow_inequality={"own"})
    communicator.sync(state)
    assert (entries["same"] == 0).all() and entries["own"] == communicator.rank


def test_what_cannot_be_shared_is_refused_with_its_name_and_what_to_do() -> None:
    fixed = np.ones(3)
    fixed.flags.writeable = False
    base = np.ones((3, 4))
    for source, kind, advice in [
        ({"w": base.T}, ccl.InvalidArgument, "entry \"w\": .*ascontiguousarray"),
        ({"a": {"b": np.array(["x"])}}, ccl.InvalidArgument, "entry \"a.b\": .*convert"),
        ({"w": "text"}, TypeError, "entry \"w\": .*pass a NumPy array"),
        ({"w": 1 << 70}, ccl.InvalidArgument, "'w'.*64 bits"),
        ({2.5: base}, TypeError, "2.5"),
        ((1, base), TypeError, "a number in a tuple"),
        (base, TypeError, "pass a dict"),
        ({"a": {"b": base}, "a.b": base}, ccl.InvalidArgument, "duplicate"),
    ]:
        with pytest.raises(kind, match=advice):
            ccl.SharedState(source)
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            with pytest.raises(ccl.InvalidArgument, match="share memory"):
                communicator.sync(ccl.SharedState({"a": base, "b": base[1:]}))
            with pytest.raises(ccl.InvalidArgument, match="entry \"w\": .*read-only"):
                communicator.sync(ccl.SharedState({"w": fixed}))
            with pytest.raises(ccl.InvalidArgument, match="receive_only"):
                communicator.sync(ccl.SharedState({}), strategy="popular")  # type: ignore[arg-type]
            state = ccl.SharedState({"a": base})
            assert communicator.sync(state).members == [communicator.peer]


def resume(communicator: ccl.Communicator, folder: Path) -> tuple[str, Any]:
    rank = communicator.rank
    entries = content(9 + rank)
    state = ccl.SharedState(entries)
    assert state.load(folder / str(rank), missing_ok=True) == (rank == 1), "rank 1 alone has a checkpoint"
    assert state.revision == (17 if rank == 1 else 0)
    root = communicator.sync(state).root
    assert state.revision == 17
    state.revision = 18
    communicator.sync(state)
    file = state.save(folder / str(rank), keep=1)
    assert list((folder / str(rank)).glob("*.safetensors")) == [file]
    return root, as_bits(entries)


def test_a_run_resumes_from_the_checkpoint_that_one_member_has(tmp_path: Path) -> None:
    kept = content(0)
    saved = ccl.SharedState(kept, revision=17)
    with pytest.raises(FileNotFoundError, match="missing_ok"):
        saved.load(tmp_path / "1")
    assert not saved.load(tmp_path / "1", missing_ok=True)
    saved.save(str(tmp_path / "1"))
    assert run(3, resume, tmp_path) == [(saved.root(), as_bits(content(0)))] * 3
    entries = content(4)
    again = ccl.SharedState(entries)
    assert again.load(tmp_path / "2") and again.revision == 18
    assert as_bits(entries) == as_bits(content(0)) and again.root() == saved.root()
    with pytest.raises(ccl.InvalidArgument, match="keep"):
        saved.save(tmp_path, keep=0)
    [file] = (tmp_path / "2").glob("*.safetensors")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ccl.Error, match=file.name):
        again.load(tmp_path / "2")
    assert again.is_usable and as_bits(entries) == as_bits(content(0))


def test_an_older_checkpoint_is_not_loaded_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.zeros(1000)
    state = ccl.SharedState({"values": values}, revision=1)
    state.save(tmp_path)
    values += 1
    state.revision = 2
    newest = state.save(tmp_path)
    assert state.load(tmp_path) and state.skipped == [] and caplog.records == []
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    assert state.load(tmp_path) and state.revision == 1
    [skipped] = state.skipped
    assert newest.name in skipped
    [record] = caplog.records
    assert (record.name, record.levelname) == ("ccl", "WARNING") and skipped in record.message


def sync_until_killed(pipe: Pipe, address: str) -> tuple[int, str]:
    with connect(address, 3) as communicator:
        value = np.full(100_000, float(communicator.rank == 2))
        state = ccl.SharedState({"value": value})
        communicator.sync(state)
        pipe.say(communicator.peer)
        victim = pipe.wait()
        if communicator.peer == victim:
            threading.Event().wait()
        value[:] = communicator.rank
        state.revision = 1
        info = communicator.sync(state)
        assert victim not in info.members
        return len(info.members), info.root


def test_a_killed_peer_does_not_disturb_a_sync() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(3, sync_until_killed, master.address) as peers:
            names = [peer.receive() for peer in peers]
            for peer in peers:
                peer.pipe.send(names[0])
            peers[0].process.kill()
            (count, root), second = (peer.receive() for peer in peers[1:])
            assert count == 2 and second == (count, root)


def test_a_number_that_nobody_could_read_is_refused(tmp_path: Path) -> None:
    ccl.SharedState({"step": 3}, revision=1).save(tmp_path / "flat")
    lost = ccl.SharedState({"step": 0})
    with pytest.raises(ccl.InvalidArgument, match="entry 'step': only the shared state"):
        lost.load(tmp_path / "flat")
    kept = {"step": 0}
    assert ccl.SharedState(kept).load(tmp_path / "flat")
    assert kept == {"step": 3}
    values = np.zeros(3)
    ccl.SharedState({"run": {"step": 3}, "values": values}, revision=1).save(tmp_path / "nested")
    lost = ccl.SharedState({"values": values, "run": {"step": 0}})
    with pytest.raises(ccl.InvalidArgument, match="entry 'run.step': only the shared state"):
        lost.load(tmp_path / "nested")
    # The program holds the value's owner, though not the dict around it.
    assert ccl.SharedState({"run": kept, "values": values}).load(tmp_path / "nested")
    whole = {"run": {"step": 0}, "values": values}
    assert ccl.SharedState(whole).load(tmp_path / "nested")
    assert whole["run"] == {"step": 3}
