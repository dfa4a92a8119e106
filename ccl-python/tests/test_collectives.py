"""Collectives among real processes, on NumPy arrays and plain buffers."""

import array
from typing import Any

import ccl
import numpy as np
import pytest
from peers import run

DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


def reduce_all_types(communicator: ccl.Communicator) -> None:
    world, rank = communicator.world_size, communicator.rank
    expected = {"sum": 6, "avg": 2, "prod": 6, "min": 1, "max": 3}
    assert world == 3
    for dtype in DTYPES:
        for count in [0, 1, 2, 1000]:
            for op, result in expected.items():
                values = np.full(count, rank + 1, dtype=dtype)
                outcome = communicator.all_reduce(values, op)  # type: ignore[arg-type]
                assert (values == result).all()
                assert outcome.world_size == 3


def test_all_reduce_covers_every_type_and_operator_of_numpy() -> None:
    run(3, reduce_all_types)


def reduce_large(communicator: ccl.Communicator, algorithm: Any) -> bytes:
    generator = np.random.default_rng(communicator.rank)
    values = generator.standard_normal(300_000).astype(np.float32)
    before = values.copy()
    result = np.empty_like(values)
    communicator.all_reduce(values, "avg", out=result, algorithm=algorithm)
    assert (values == before).all()
    inputs = [np.random.default_rng(r).standard_normal(300_000) for r in range(3)]
    assert np.allclose(result, np.mean(inputs, axis=0), atol=1e-6)
    return result.tobytes()


@pytest.mark.parametrize("algorithm", ["one_shot", "two_shot", "ring"])
def test_everybody_gets_the_same_bits_out_of_place(algorithm: str) -> None:
    results = run(3, reduce_large, algorithm)
    assert results[0] == results[1] == results[2]


def reduce_encoded(communicator: ccl.Communicator, encoding: Any) -> bytes:
    generator = np.random.default_rng(communicator.rank)
    values = generator.standard_normal(70_000).astype(np.float32)
    exact = sum(np.random.default_rng(r).standard_normal(70_000) * (r + 1) for r in range(3)) / 6
    outcome = communicator.all_reduce(
        values, "avg", encoding=encoding, weight=communicator.rank + 1, seed=communicator.rank
    )
    assert outcome.weights == [1, 2, 3] and len(outcome.contributors) == 3
    error = np.linalg.norm(values - exact) / np.linalg.norm(exact)
    assert 0 < error < {"int8": 0.03, "bf16": 0.01}[encoding]
    with pytest.raises(ccl.InvalidArgument, match="int8, e3m0"):
        communicator.all_reduce(values, "avg", encoding="fp8")  # type: ignore[arg-type]
    return values.tobytes()


@pytest.mark.parametrize("encoding", ["int8", "bf16"])
def test_everybody_gets_the_same_weighted_average_of_encoded_buffers(encoding: str) -> None:
    results = run(3, reduce_encoded, encoding)
    assert results[0] == results[1] == results[2]


def reduce_many(communicator: ccl.Communicator) -> ccl.Counters | None:
    rank = communicator.rank
    buffers = [np.full((count, 2), rank, dtype=np.float64) for count in [0, 1, 5, 4096]]
    outcome = communicator.all_reduce_many(buffers, "sum")
    assert all((buffer == 3).all() for buffer in buffers)
    assert outcome.attempts == 1 and len(outcome.contributors) == 3
    assert communicator.counters().commits == 1
    return None


def test_a_list_of_buffers_is_one_transaction() -> None:
    run(3, reduce_many)


def other_collectives(communicator: ccl.Communicator) -> None:
    rank, world = communicator.rank, communicator.world_size
    gathered = np.zeros((world, 4), dtype=np.int32)
    communicator.all_gather(np.full(4, rank, dtype=np.int32), gathered)
    assert (gathered == np.arange(world)[:, None]).all()

    shares = np.arange(world * 5, dtype=np.int64)
    mine = np.zeros(5, dtype=np.int64)
    communicator.reduce_scatter(shares, mine, "sum")
    assert (mine == world * np.arange(rank * 5, rank * 5 + 5)).all()

    text = bytearray(b"from one" if rank == 1 else 8)
    communicator.broadcast(text, root=1)
    assert text == b"from one"

    assert communicator.all_gather_scalars([rank, 0.5]) == [[r, 0.5] for r in range(world)]
    assert communicator.all_gather_scalars([]) == [[]] * world
    communicator.barrier()
    assert communicator.update_topology().members == communicator.view.members


def test_the_other_collectives_move_what_their_names_say() -> None:
    run(3, other_collectives)


def gather_integers(communicator: ccl.Communicator) -> None:
    exact: list[Any] = [2**53, -(2**53), 2**60, np.int64(2**53 - 1), True, np.float32(0.1)]
    assert communicator.all_gather_scalars(exact) == [[float(value) for value in exact]]
    rounded: list[Any] = [2**53 + 1, -(2**53) - 1, np.uint64(2**64 - 1), 10**400]
    for value in rounded:
        with pytest.raises(ccl.InvalidArgument, match=rf"{value} cannot be .*arrays of int64"):
            communicator.all_gather_scalars([1.0, value])
    with pytest.raises(TypeError):
        communicator.all_gather_scalars(["1"])  # type: ignore[list-item]
    assert communicator.counters().commits == 1


def test_integers_that_would_be_rounded_are_refused() -> None:
    run(1, gather_integers)


def plain_buffers(communicator: ccl.Communicator) -> None:
    numbers = array.array("d", [1.0, 2.0])
    communicator.all_reduce(numbers)
    assert list(numbers) == [2.0, 4.0]
    part = np.zeros(10, dtype=np.float32)
    communicator.all_reduce(part.data[2:4])
    half = np.ones(10, dtype=np.float32)
    communicator.all_reduce(half[:5])
    assert half.tolist() == [2] * 5 + [1] * 5


def test_anything_with_the_buffer_protocol_is_reduced_where_it_lies() -> None:
    run(2, plain_buffers)


def test_a_buffer_that_cannot_be_used_is_refused_with_what_to_do() -> None:
    values = np.zeros((4, 4), dtype=np.float32)
    fixed = np.zeros(4)
    fixed.flags.writeable = False
    refused: list[tuple[Any, str]] = [
        (values[:, 1], "ascontiguousarray"),
        (values.T[1:], "ascontiguousarray"),
        (fixed, "read-only"),
        (b"bytes", "read-only"),
        (np.zeros(4, dtype=bool), "view bool as uint8"),
        (np.zeros(4, dtype=np.complex64), "convert to one of"),
        (np.zeros(4, dtype=">f4"), "byte order"),
    ]
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            for buffer, advice in refused:
                with pytest.raises(ccl.InvalidArgument, match=advice):
                    communicator.all_reduce(buffer)
            for stranger in [[1.0, 2.0], "text", None, 3]:
                with pytest.raises(TypeError, match="NumPy array"):
                    communicator.all_reduce(stranger)  # type: ignore[arg-type]
            out = np.zeros(4, dtype=np.float64)
            with pytest.raises(ValueError, match="out has f64 elements, the input f32"):
                communicator.all_reduce(values[0], out=out)
            with pytest.raises(ValueError, match="4 are needed"):
                communicator.all_gather(values[0], values)
            with pytest.raises(ValueError, match="need 2"):
                communicator.reduce_scatter(values[0], out[:2])
            communicator.all_reduce(fixed, out=out)
            assert communicator.counters().commits == 1


def test_settings_are_checked_by_name_and_range() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'lane'"):
        ccl.Communicator("127.0.0.1:1", lane=4)  # type: ignore[call-arg]
    with pytest.raises(ccl.InvalidArgument, match="lanes must be 1 to 32"):
        ccl.Communicator("127.0.0.1:1", lanes=33)
    with pytest.raises(ccl.InvalidArgument, match="address to listen on"):
        ccl.Master(listen="nowhere")
    with pytest.raises(ccl.InvalidArgument, match="connect_timeout: -1 is not a valid time"):
        ccl.Communicator("127.0.0.1:1", connect_timeout=-1)
    wrong: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"lanes": -1}, ccl.InvalidArgument),
        ({"lanes": "4"}, TypeError),
        ({"checksum": 1}, TypeError),
        ({"run": None}, TypeError),
        ({"group": 1 << 64}, ccl.InvalidArgument),
    ]
    for settings, kind in wrong:
        [name] = settings
        with pytest.raises(kind, match=f"{name}: "):
            ccl.Communicator("127.0.0.1:1", **settings)
    with pytest.raises(TypeError, match="fsync: "):
        ccl.Master(fsync="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'peer_time'"):
        ccl.Master(peer_time=1)  # type: ignore[call-arg]
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            with pytest.raises(ccl.InvalidArgument, match="sum, avg, prod, min, max"):
                communicator.all_reduce(bytearray(4), "mean")  # type: ignore[arg-type]
            with pytest.raises(ccl.InvalidArgument, match="tag: "):
                communicator.barrier(tag=-1)
            with pytest.raises(ccl.InvalidArgument, match="auto, one_shot, two_shot, ring"):
                communicator.barrier(algorithm="fast")  # type: ignore[arg-type]
