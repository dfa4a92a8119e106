"""The torch.distributed backend ``ccl``: DDP and HSDP's replicate dimension over unreliable links.

Importing this package registers the backend. There are three ways to use it (see ``docs/python.md``):

- ``init_process_group("ccl", init_method="ccl://host:port?initial_world_size=3")``: an *elastic* run, in
  which peers come and go. Each process appears to torch as the only one (rank 0 of 1).
- ``use_master("host:port")``, then any of torch's own ways to create a group of fixed ranks, such as
  ``init_device_mesh(..., backend_override={"replicate": "ccl"})``: ranks may be lost, but none can join.
- ``use_master`` and ``init_process_group("ccl", ..., enable_reconfigure=True)``, or
  ``reconfigurable_group``: the program sets the members with ``reconfigure``, as often as it likes.

``Site`` is a fourth way, for sites that each shard one model with FSDP2. Torch's groups then connect only
the processes of one site.
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
