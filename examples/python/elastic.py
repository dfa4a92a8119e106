"""A training loop whose processes may come, go and die at any moment, all of them and the master at once too.

    ccl master --journal run.journal                      # in one terminal
    python elastic.py 127.0.0.1:48148 checkpoints         # in each of some others; kill and start them as you like

All members hold the same weights after each step, bit for bit. A newcomer gets them at a safe point;
a process that was cut off for too long comes back as one. If all that had them die before a newcomer has got them, it
goes on from the newest checkpoint, or begins anew. Now and then one member saves a checkpoint: if
everything was killed, the same command lines go on from the newest. A process whose checkpoints are of another
run ends with a message.
"""

import sys
import time

import ccl
import numpy

STEPS = 10_000
STEPS_PER_CHECKPOINT = 20


def gradient_of(weights: numpy.ndarray, step: int, rank: int) -> numpy.ndarray:
    """Stands for a batch of this member's own, and for the time that takes."""
    time.sleep(0.05)
    noise = numpy.random.default_rng([step, rank]).standard_normal(weights.shape)
    return (weights - 1 + 0.1 * noise).astype(weights.dtype)


def sync(
    comm: ccl.Communicator, weights: numpy.ndarray, state: ccl.SharedState, directory: str, restore: bool
) -> None:
    """Gives all members the same weights."""
    while True:
        try:
            comm.sync(state, restore=restore)  # moves nothing, but to a newcomer
            return
        except ccl.StateMismatch as mismatch:
            if mismatch.fault != "no_source":
                raise
            print(mismatch, flush=True)
        if not state.load(directory, missing_ok=True):
            weights[:] = 0
            state.begin_anew()
        restore = True


def train(
    comm: ccl.Communicator, weights: numpy.ndarray, state: ccl.SharedState, directory: str
) -> None:
    restore = True  # if all begin anew, what was sealed last may be lost: then from the newest there is
    while True:
        sync(comm, weights, state, directory, restore)  # a newcomer has everything from here on
        restore = False
        step = state.revision
        if step % STEPS_PER_CHECKPOINT == 0 and comm.rank == 0:
            state.save(directory)
        if step >= STEPS:
            return
        while True:
            gradient = gradient_of(weights, step, comm.rank)
            try:
                outcome = comm.all_reduce(gradient, "avg")
                break
            except ccl.PeerLost as lost:  # aborted for all alike: again, with who is left
                print(f"step {step}: {lost}", flush=True)
        weights -= 0.1 * gradient
        state.revision = step + 1
        print(f"step {step}: {outcome.world_size} peers, weights {state.root()[:16]}", flush=True)
        comm.update_topology()  # newcomers enter here, and nowhere else; all go on with the sync


def main(address: str, directory: str) -> None:
    weights = numpy.zeros(100_000, dtype=numpy.float32)
    state = ccl.SharedState({"weights": weights})
    state.load(directory, missing_ok=True)
    while state.revision < STEPS:
        try:
            with ccl.Communicator(address, initial_world_size=2) as comm:
                train(comm, weights, state, directory)
        except ccl.RevisionAhead as ahead:  # with the same state it would be evicted again
            sys.exit(f"{ahead}: start it with the run's directory of checkpoints instead of {directory}")
        except ccl.SessionOver as over:  # evicted, or too long without a master
            print(f"{over}: joins again", flush=True)
            state.load(directory, missing_ok=True)  # the run may have gone back to a checkpoint meanwhile


main(*sys.argv[1:])
