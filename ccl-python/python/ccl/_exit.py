"""A process that ends leaves its runs first, so that the others need not find out by themselves.

Functions that were registered last are called first: those of the application, then the one that
leaves the runs, then the one that keeps threads of the library out of an interpreter that ends.
"""

import atexit
import os
import sys
import weakref

from ccl import _log as _log  # What it registers is called after what is registered here.
from ccl._native import Communicator, Connecting, close_door, forget_inside

_open: "weakref.WeakSet[Communicator | Connecting]" = weakref.WeakSet()
#: The process of multiprocessing that knows what to do at its end.
_worker = 0


def close_at_exit(member: Communicator | Connecting) -> None:
    """Closes it when the interpreter ends, unless it is gone by then."""
    global _worker
    _open.add(member)
    # Those that multiprocessing forks end without a look at atexit.
    process = sys.modules.get("multiprocessing.process")
    if process and process.parent_process() and _worker != os.getpid():
        from multiprocessing import util

        _worker = os.getpid()
        util.Finalize(None, _close_all, exitpriority=0)


def _close_all() -> None:
    for member in list(_open):
        member.close()


os.register_at_fork(after_in_child=forget_inside)
atexit.register(close_door)
atexit.register(_close_all)
