"""Leaves all runs when the process ends, so that the other peers need not detect a loss.

Functions registered last are called first: first the application's, then the one that leaves the
runs, then the one that keeps the library's threads out of the ending interpreter.
"""

import atexit
import os
import sys
import weakref

from ccl import _log as _log  # Imported first, so that its atexit function runs last.
from ccl._native import Communicator, Connecting, close_door, forget_inside

_open: "weakref.WeakSet[Communicator | Connecting]" = weakref.WeakSet()
#: The multiprocessing worker whose finalizer is registered.
_worker = 0


def close_at_exit(member: Communicator | Connecting) -> None:
    """Closes it when the interpreter ends, unless it was collected before."""
    global _worker
    _open.add(member)
    # Forked multiprocessing workers do not run atexit functions.
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
