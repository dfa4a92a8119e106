"""The overloads of a process group's methods.

Torch itself passes lists of tensors and an options object. Users may also pass a single tensor and
separate options: ``group.allreduce(tensor, op=…)``, ``group.broadcast(tensor, 1)``.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

import ccl
from ccl._native import uninterrupted

Method = TypeVar("Method", bound=Callable[..., Any])

#: Parameter names of tensors and lists of tensors in torch's overloads.
_TENSORS = [
    ("tensors", "tensor", "outputs", "output", "output_tensors", "output_tensor"),
    ("inputs", "input", "input_tensors", "input_tensor"),
]
#: Fields of option objects, by the name of the separate argument.
_FIELDS = {"op": "reduceOp", "root": "rootRank", "timeout": "timeout"}


def overloaded(
    make_options: Callable[[], Any], lists_count: int, *fields: str
) -> Callable[[Method], Method]:
    """Adds the other overloads to ``method(*lists, options)``, with these fields in this order."""

    def decorate(method: Method) -> Method:
        @wraps(method)
        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            given = list(arguments)
            for names in _TENSORS[len(given) : lists_count]:
                given.extend(named.pop(name) for name in names if name in named)
            lists, rest = given[:lists_count], given[lists_count:]
            if len(lists) < lists_count:
                raise ccl.InvalidArgument(f"{method.__name__} needs its tensors")
            if any(isinstance(tensors, torch.Tensor) for tensors in lists):
                lists = [[tensors] for tensors in lists]
            options = named.pop("opts", None)
            if options is None and rest and type(rest[0]).__name__.endswith("Options"):
                options = rest.pop(0)
            named |= dict(zip(fields, rest, strict=False))
            return method(self, *lists, _filled(options or make_options(), named, method.__name__))

        # `torch.compile` cannot trace this, so keep it from trying. DDP calls it from C++.
        return uninterrupted(cast("Method", torch._disable_dynamo(call)))

    return decorate


def _filled(options: Any, named: dict[str, Any], method: str) -> Any:
    for name, value in named.items():
        if name not in _FIELDS or not hasattr(options, _FIELDS[name]):
            raise ccl.InvalidArgument(f"{method} has no argument {name!r}")
        if value is not None:
            setattr(options, _FIELDS[name], value)
    return options
