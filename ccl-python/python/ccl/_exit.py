"""A process that ends leaves its runs first, so that the others need not find out by themselves."""

import atexit
import weakref

from ccl._native import Communicator

_open: "weakref.WeakSet[Communicator]" = weakref.WeakSet()


def close_at_exit(communicator: Communicator) -> None:
    """Closes it when the interpreter ends, unless it is gone by then."""
    _open.add(communicator)


@atexit.register
def _close_all() -> None:
    for communicator in list(_open):
        communicator.close()
