"""Python values in a shared state: copied to memory for a call, and written back after it."""

import ast
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from ccl._errors import InvalidArgument

#: Bytes of a flag or text, or the next power of two, so that most can replace each other.
WORD_BYTES = 256


class Value(Protocol):
    """A value that is copied to memory for a call, and written back after it."""

    def copy(self, name: str) -> "array[Any]":
        """A copy of the value in memory."""

    def put(self, memory: "array[Any]") -> None:
        """Sets the value from memory."""


class Number(NamedTuple):
    """A Python number, which cannot be written in place."""

    owner: Any
    key: Any
    is_float: bool

    def copy(self, name: str) -> "array[Any]":
        """A copy of the value in memory."""
        value = self.owner[self.key]
        try:
            memory = self._pack(value)
        except OverflowError as error:
            raise InvalidArgument(f"entry {name!r}: {value} does not fit in 64 bits") from error
        if isinstance(value, int) and memory[0] != value:
            raise InvalidArgument(
                f"entry {name!r}: {value} would be rounded, since numbers of an optimizer's groups "
                "are floats: keep integers beyond 2**53 in a dict"
            )
        return memory

    def put(self, memory: "array[Any]") -> None:
        """Sets the value from memory, unless it is already the same, bit for bit."""
        before = self.owner[self.key]
        if not self._has(before, memory):
            self.owner[self.key] = self._like(before, memory)

    def _like(self, before: Any, memory: "array[Any]") -> Any:
        """The value in its earlier type, unless that type cannot represent it."""
        value = memory[0]
        try:
            converted = type(before)(value)
        except (TypeError, ValueError, OverflowError):
            return value
        return converted if self._has(converted, memory) else value

    def _has(self, value: Any, memory: "array[Any]") -> bool:
        try:
            return self._pack(value).tobytes() == memory.tobytes()
        except (TypeError, ValueError, OverflowError):
            return False

    def _pack(self, value: Any) -> "array[Any]":
        return array("d", [value]) if self.is_float else array("q", [value])


class Word(NamedTuple):
    """A flag, a text or ``None``."""

    owner: Any
    key: Any

    def copy(self, name: str) -> "array[Any]":
        """A copy of the value in memory, as ``repr`` writes it."""
        text = repr(self.owner[self.key]).encode()
        room = WORD_BYTES
        while room < len(text):
            room *= 2
        return array("B", text.ljust(room, b"\0"))

    def put(self, memory: "array[Any]") -> None:
        """Sets the value from memory."""
        value = ast.literal_eval(memory.tobytes().rstrip(b"\0").decode())
        if value is not None and not isinstance(value, bool | str):
            raise TypeError(f"{value!r} is not a flag, a text or None")
        if self.owner[self.key] != value:
            self.owner[self.key] = value


class _Items:
    """The items of a tuple, which is replaced when one changes."""

    def __init__(self, owner: Any, key: Any) -> None:
        self.owner = owner
        self.key = key

    def __getitem__(self, index: Any) -> Any:
        return self.owner[self.key][index]

    def __setitem__(self, index: int, value: Any) -> None:
        before = self.owner[self.key]
        items = [*before[:index], value, *before[index + 1 :]]
        is_named = hasattr(before, "_make")
        self.owner[self.key] = before._make(items) if is_named else type(before)(items)


def settings(prefix: str, owner: Any, keys: list[Any]) -> Iterator[tuple[str, object]]:
    """Names and values (or tensors) of the settings of an optimizer or a scheduler.

    Numbers are treated as floats, so that 1 and 1.0 are the same.
    """
    for key in keys:
        value, name = owner[key], f"{prefix}{key}"
        if value is None or isinstance(value, bool | str):
            yield name, Word(owner, key)
        elif isinstance(value, int | float):
            yield name, Number(owner, key, is_float=True)
        elif isinstance(value, dict):
            _check_keys(name, value)
            yield from settings(f"{name}.", value, sorted(value, key=str))
        elif isinstance(value, list):
            yield from settings(f"{name}.", value, list(range(len(value))))
        elif isinstance(value, tuple):
            yield from settings(f"{name}.", _Items(owner, key), list(range(len(value))))
        elif hasattr(value, "data_ptr"):
            yield name, value
        else:
            raise InvalidArgument(
                f"entry {name!r}: a {type(value).__qualname__} cannot be shared: settings are numbers, "
                "tensors, flags, texts, None, and lists, tuples and dicts of these"
            )


def _check_keys(name: str, value: dict[Any, Any]) -> None:
    for key in value:
        if not isinstance(key, str | int):
            raise TypeError(f"entry {name!r}: the key {key!r} of a shared state is not a text")
