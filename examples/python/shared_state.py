"""Three processes, of which one comes with the state, get it from each other, verified.

    ccl master --new-run                                 # in one terminal
    python shared_state.py 127.0.0.1:48148 trained       # in one other
    python shared_state.py 127.0.0.1:48148               # in each of two more
"""

import sys

import ccl
import numpy

address, *rest = sys.argv[1:]
is_trained = rest == ["trained"]
weights = numpy.full(1_000_000, 0.5 if is_trained else 0, dtype=numpy.float32)
state = ccl.SharedState({"weights": weights}, revision=1 if is_trained else 0)

with ccl.Communicator(address, initial_world_size=3) as comm:
    info = comm.sync(state)
    print(f"rank {comm.rank}: revision {info.revision}, {info.received_bytes / 1e6:.1f} MB received")
    assert (weights == 0.5).all()
    comm.barrier()  # nobody leaves while others still fetch from it
