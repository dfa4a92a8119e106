"""The torch.distributed backend ``ccl``: DDP and HSDP's replicate dimension over links that fail.

Importing it registers the backend. Three ways to use that, see ``docs/python.md``:

- ``init_process_group("ccl", init_method="ccl://host:port?initial_world_size=3")``: an *elastic* run, in
  which peers come and go. Torch is told that each process is alone (rank 0 of 1).
- ``use_master("host:port")``, then any of torch's own ways to make a group of fixed ranks, such as
  ``init_device_mesh(..., backend_override={"replicate": "ccl"})``: members may be lost, nobody joins.
- ``use_master`` and ``init_process_group("ccl", ..., enable_reconfigure=True)``, or
  ``reconfigurable_group``: the program says by ``reconfigure`` who the members are, again and again.

A fourth way leaves torch's groups to what runs inside a site: ``Site`` is for sites that each shard one
model with FSDP2.
"""

from ccl.torch._backend import (
    communicator,
    reconfigurable_group,
    share,
    update_topology,
    use_master,
)
from ccl.torch._errors import raise_pending
from ccl.torch._site import Site

__all__ = [
    "Site",
    "communicator",
    "raise_pending",
    "reconfigurable_group",
    "share",
    "update_topology",
    "use_master",
]
