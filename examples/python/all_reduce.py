"""Three processes average an array.

    ccl master --new-run                        # in one terminal
    python all_reduce.py 127.0.0.1:48148        # in each of three others
"""

import sys

import ccl
import numpy

with ccl.Communicator(sys.argv[1], initial_world_size=3) as comm:
    values = numpy.full(1_000_000, comm.rank, dtype=numpy.float32)
    outcome = comm.all_reduce(values, "avg")  # in place
    print(f"rank {comm.rank}: {values[0]} from {outcome.world_size} peers")
