"""What holds for all tests."""

import os

# Peers share few cores; threads of torch's that wait for each other there take many times as long. Torch
# reads it when it is imported, here and in the peers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
