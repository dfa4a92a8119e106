"""Passes the library's log lines to Python's logger ``ccl``."""

import atexit
import logging
import os
import threading

from ccl import _native
from ccl._errors import InvalidArgument

_logger = logging.getLogger("ccl")
_thread: threading.Thread | None = None


def set_log_level(level: int | str | None) -> None:
    """Passes the library's log lines of at least ``level`` to the logger ``ccl``; ``None``: none.

    A level is a number or a name of ``logging``; 5 is the most detailed. A thread, ``ccl-log``, calls
    the logger's handlers, so that a slow handler does not block the library. When the queue is full,
    lines are dropped, and their number is logged. The log is off at first, and in a forked child.
    Two warnings do not depend on it: what a call has been waiting for, and a checkpoint that cannot
    be used.
    """
    global _taken, _thread
    _taken = (os.getpid(), _number(level))
    _native.log_level(_taken[1])
    if level is not None and (_thread is None or not _thread.is_alive()):
        _thread = threading.Thread(target=_hand_over, name="ccl-log", daemon=True)
        _thread.start()


def tell(words: str) -> None:
    """Logs a warning that needs no setup, unless the library's own log line already says the same."""
    process, level = _taken
    if process != os.getpid() or level > logging.WARNING:
        _logger.warning("%s", words)


def _number(level: int | str | None) -> int:
    if level is None:
        return _OFF
    names = logging.getLevelNamesMapping()
    if isinstance(level, str):
        if level.upper() not in names:
            raise InvalidArgument(_NO_LEVEL.format(level))
        level = names[level.upper()]
    if not isinstance(level, int):
        raise TypeError(_NO_LEVEL.format(level))
    return min(max(level, 0), _OFF)


def _hand_over() -> None:
    while (taken := _native.log_lines()) is not None:
        lines, dropped = taken
        for level, text, created, thread, file, line in lines:
            if _logger.isEnabledFor(level):
                _logger.handle(_record(level, text, created, thread, file, line))
        if dropped:
            _logger.warning("%d log lines were dropped: the handlers are too slow", dropped)


def _record(
    level: int, text: str, created: float, thread: str | None, file: str, line: int
) -> logging.LogRecord:
    record = _logger.makeRecord(_logger.name, level, file, line, text, (), None)
    record.created = created
    record.msecs = int(created % 1 * 1000)
    record.thread = None
    record.threadName = thread
    return record


@atexit.register
def _end() -> None:
    """Logs the last lines before the interpreter ends, unless a handler takes too long."""
    _native.log_close()
    if _thread is not None:
        _thread.join(_LAST_LINES_SECONDS)


_NO_LEVEL = "{!r} is not a log level: pass a number, or a name such as 'info'"
#: Above all levels.
_OFF = 255
#: The process that takes the library's log lines, and their lowest level.
_taken = (os.getpid(), _OFF)
_LAST_LINES_SECONDS = 1.0
