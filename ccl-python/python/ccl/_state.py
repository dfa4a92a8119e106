"""The entries of a shared state: names, memory and shapes of the Python objects that hold it.

They are looked up at each call, because torch replaces tensors when it loads a state. Torch and NumPy
are used only if the program has imported them.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ccl._errors import InvalidArgument
from ccl._values import Number, Value, Word, settings


class Entry(NamedTuple):
    """The memory of one entry, as the native module reads it."""

    name: str
    memory: Any
    shape: tuple[int, ...] | None
    allow_inequality: bool


class Content:
    """The entries of a state during one call."""

    def __init__(self, source: object, unequal: frozenset[str], is_held: bool) -> None:
        self.entries: list[Entry] = []
        self._values: list[tuple[str, Value, array[Any]]] = []
        self._afterwards: list[Callable[[], object]] = []
        for name, leaf in _leaves("", source, is_held):
            self._add(name, leaf, name in unequal)
        self._check_names("allow_inequality", unequal)

    def _add(self, name: str, leaf: object, allow_inequality: bool) -> None:
        if isinstance(leaf, Number | Word):
            memory = leaf.copy(name)
            self._values.append((name, leaf, memory))
            shape = () if isinstance(leaf, Number) else (len(memory),)
            self.entries.append(Entry(name, memory, shape, allow_inequality))
        elif isinstance(leaf, _Afterwards):
            self._afterwards.append(leaf.call)
        else:
            plain = _plain(leaf)
            self.entries.append(Entry(name, plain, _shape(plain), allow_inequality))

    def touched(self, names: Iterable[str]) -> list[int]:
        """Indices of these entries, and of all numbers and texts, which cost nothing to hash."""
        wanted = _names("touched", names)
        self._check_names("touched", wanted)
        wanted |= {name for name, _, _ in self._values}
        return [index for index, entry in enumerate(self.entries) if entry.name in wanted]

    def _check_names(self, argument: str, wanted: frozenset[str]) -> None:
        unknown = wanted - {entry.name for entry in self.entries}
        if unknown:
            raise InvalidArgument(f"{argument}: there is no entry {sorted(unknown)[0]!r}")

    def write_back(self) -> None:
        """Writes values back to their owners; tensors and arrays were written in place.

        If one of them raises, the others are still written; then the error is raised.
        """
        failure: Exception | None = None
        for name, value, memory in self._values:
            try:
                value.put(memory)
            except Exception as error:
                error.add_note(f"ccl: entry {name!r} of a shared state could not be written back")
                failure = failure or error
        for call in self._afterwards:
            call()
        if failure is not None:
            raise failure


class _Afterwards(NamedTuple):
    """Called once all values are written back."""

    call: Callable[[], object]


def look(source: object, unequal: frozenset[str], is_held: bool) -> Content:
    """The current content of a state. ``is_held`` is true if the program also holds the source, and
    so can read what a sync writes to it, or if nothing will be written.
    """
    return Content(source, unequal, is_held)


def names(allow_inequality: Iterable[str] | None) -> frozenset[str]:
    """The argument as a set of names."""
    return _names("allow_inequality", allow_inequality or ())


def _names(argument: str, given: Iterable[str]) -> frozenset[str]:
    """Refuses a single text, which would be taken for a list of characters."""
    if isinstance(given, str):
        raise TypeError(f"{argument} is one text: pass a list of names")
    return frozenset(given)


def _leaves(prefix: str, source: object, is_held: bool) -> Iterator[tuple[str, object]]:
    """Yields each entry's name, and its memory or value."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.nn.Module):
        yield from _named(prefix, source.named_parameters())
        yield from _named(prefix, source.named_buffers())
    elif torch is not None and isinstance(source, torch.optim.Optimizer):
        yield from _of_optimizer(prefix, source)
    elif torch is not None and isinstance(source, torch.optim.lr_scheduler.LRScheduler):
        yield from _of_scheduler(prefix, source)
    elif isinstance(source, Mapping):
        yield from _of_container(prefix, source, source, is_held)
    elif isinstance(source, list | tuple):
        yield from _of_container(prefix, source, range(len(source)), is_held)
    else:
        raise TypeError(
            f"a shared state cannot be made of {type(source).__qualname__}: pass a dict of arrays "
            "and tensors, a torch module, optimizer or scheduler, or a list or dict of these"
        )


def _named(prefix: str, pairs: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    for name, value in pairs:
        yield prefix + name, value


def _of_container(
    prefix: str, owner: Any, keys: Iterable[Any], is_held: bool
) -> Iterator[tuple[str, object]]:
    for key in keys:
        if not isinstance(key, str | int):
            raise TypeError(f"the key {key!r} of a shared state is not a text")
        name = f"{prefix}{key}"
        # Checked before this function adds a reference.
        is_value_held = is_held or _references(owner, key) > _REFERENCES_OF_OWNER
        value = owner[key]
        if isinstance(value, bool | int | float):
            _check_number(name, owner, is_held)
            yield name, Number(owner, key, isinstance(value, float))
        elif _is_nest(value):
            yield from _leaves(f"{name}.", value, is_value_held)
        else:
            yield name, value
        del value


def _check_number(name: str, owner: object, is_held: bool) -> None:
    """Refuses a number whose new value after a sync would be lost."""
    kind = type(owner).__name__
    if not hasattr(owner, "__setitem__"):
        raise TypeError(
            f"entry {name!r}: a number in a {kind} cannot be written back: "
            "keep it in a dict, or pass a NumPy array without dimensions"
        )
    if not is_held:
        raise InvalidArgument(
            f"entry {name!r}: only the shared state holds the {kind} of this number, so what a sync or load "
            f"writes there is lost: keep the {kind} in a variable and read it there; for an optimizer or a "
            "scheduler, pass the object and not its state_dict()"
        )


def _references(owner: Any, key: Any) -> int:
    return sys.getrefcount(owner[key])


#: Reference count of an object that only its owner holds.
_REFERENCES_OF_OWNER = _references([{}], 0)


def _is_nest(value: object) -> bool:
    torch = sys.modules.get("torch")
    is_torch = torch is not None and isinstance(
        value, torch.nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler
    )
    return is_torch or isinstance(value, Mapping | list | tuple)


def _of_optimizer(prefix: str, optimizer: Any) -> Iterator[tuple[str, object]]:
    """The state by parameter number, as in torch's ``state_dict``, and the settings of groups."""
    index = 0
    for number, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            yield from _of_parameter(f"{prefix}state.{index}.", state)
            index += 1
        keys = sorted(key for key in group if key != "params")
        yield from settings(f"{prefix}group.{number}.", group, keys)
    if not optimizer.state and not _is_stateless(optimizer):
        raise InvalidArgument(
            f"{type(optimizer).__name__} has no state yet: torch creates it in the first step. Give "
            "all parameters a gradient of zeros, call step() once and then zero_grad(), and then "
            "share it; at newcomers the first sync replaces what that step did. Leave out an "
            "optimizer that never has any state"
        )


def _is_stateless(optimizer: Any) -> bool:
    """Whether this is torch's only optimizer without any state: SGD without momentum."""
    is_sgd = isinstance(optimizer, sys.modules["torch"].optim.SGD)
    return is_sgd and not any(group["momentum"] for group in optimizer.param_groups)


def _of_parameter(prefix: str, state: dict[str, Any]) -> Iterator[tuple[str, object]]:
    # Loading a state changes the order of the keys.
    for key in sorted(state):
        value = state[key]
        if value is None:
            continue
        if _is_nest(value):
            raise InvalidArgument(
                f"entry {prefix + key!r}: a {type(value).__name__} in an optimizer's state cannot "
                "be shared, only tensors and numbers"
            )
        yield from _of_container(prefix, state, [key], is_held=True)


def _of_scheduler(prefix: str, scheduler: Any) -> Iterator[tuple[str, object]]:
    """The entries of a scheduler's ``state_dict``, which is loaded again afterwards."""
    saved = scheduler.state_dict()
    yield from settings(prefix, saved, sorted(saved))
    yield prefix, _Afterwards(lambda: scheduler.load_state_dict(saved))


def _plain(leaf: Any) -> Any:
    """The same memory, viewed as a type that the library supports; only its bits matter here."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(leaf, torch.Tensor):
        return _plain_tensor(torch, leaf)
    if numpy is not None and isinstance(leaf, numpy.ndarray) and leaf.flags.c_contiguous:
        if leaf.dtype.kind == "b":
            return leaf.view(numpy.uint8)
        if leaf.dtype.kind == "c":
            part = leaf.real.dtype
            return leaf.reshape((*leaf.shape, 1)).view(part)
    return leaf


def _plain_tensor(torch: Any, tensor: Any) -> Any:
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()  # This rank's shard of a DTensor.
    if tensor.layout != torch.strided or not tensor.is_contiguous():
        return tensor  # The native module refuses it, and says what to do.
    if tensor.is_complex() and not tensor.is_conj():
        return torch.view_as_real(tensor)
    if tensor.element_size() == 1 and tensor.dtype != torch.int8:
        return tensor.view(torch.uint8)
    return tensor


def _shape(memory: Any) -> tuple[int, ...] | None:
    """The shape, or ``None`` if the object has none; it then counts as one row."""
    shape = getattr(memory, "shape", None)
    if isinstance(shape, Sequence):
        return tuple(int(extent) for extent in shape)
    try:
        return memoryview(memory).shape
    except TypeError:
        return None
