"""The torch.distributed backend ``ccl``: DDP and HSDP's replicate dimension over links that fail.

Importing it registers the backend. Two ways to use it, see ``docs/python.md``:

- ``init_process_group("ccl", init_method="ccl://host:port?initial_world_size=3")``: an *elastic* run, in
  which peers come and go. Torch is told that each process is alone (rank 0 of 1).
- ``use_master("host:port")``, then any of torch's own ways to make a group of fixed ranks, such as
  ``init_device_mesh(..., backend_override={"replicate": "ccl"})``: members may be lost, nobody joins.
"""

from ccl.torch._backend import communicator, share, update_topology, use_master
from ccl.torch._errors import raise_pending

__all__ = ["communicator", "raise_pending", "share", "update_topology", "use_master"]
