"""The ``ccl`` command: ``ccl master``, ``ccl demo``, ``ccl bench``; also ``python -m ccl``."""

import signal
import sys

from ccl import _native


def main(flags: tuple[str, ...] = ("-P",)) -> int:
    """Runs the command with the arguments of this process; returns its exit status.

    ``flags`` are the interpreter's for the processes that it starts of itself. A script on the PATH
    does not import from the current directory, so they do not either.
    """
    # Python's own handler would wait for bytecode to run, and none does until the command ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = [sys.executable, *flags, "-m", "ccl"]
    return _native.run_command(program, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main(flags=()))
