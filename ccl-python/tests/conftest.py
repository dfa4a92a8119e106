"""Settings for all tests."""

import os

# Peers share few cores, where torch's threads would spend most of their time waiting for each other.
# Torch reads this when it is imported, here and in the peers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
