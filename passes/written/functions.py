"""What a step asked of its arguments' values, as JSON: functions of PyTorch by name."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import get_overridable_functions, resolve_name

from ..capture.branches import Branches, Call, Value
from .refused import UnusableError
from .values import PLAIN, Kind, Values, checked, shortened

MAKERS = (
    *(
        "arange",
        "as_tensor",
        "empty",
        "eye",
        "full",
        "linspace",
        "logspace",
        "ones",
        "scalar_tensor",
        "tensor",
        "zeros",
    ),
)
"""Functions that make tensors of plain values."""

UNDERSCORED = frozenset(
    f"__{name}__"
    for name in (
        *("add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "truediv", "rtruediv", "itruediv"),
        *("floordiv", "rfloordiv", "ifloordiv", "mod", "rmod", "imod", "pow", "rpow", "ipow", "matmul", "rmatmul"),
        *("and", "rand", "iand", "or", "ror", "ior", "xor", "rxor", "ixor", "invert", "lshift", "rshift", "neg", "abs"),
        *("eq", "ne", "lt", "le", "gt", "ge", "bool", "int", "float", "index", "len", "contains", "getitem", "setitem"),
    )
)

REFUSED = frozenset(
    (
        *("apply_", "map_", "map2_", "backward", "register_hook", "register_post_accumulate_grad_hook", "retain_grad"),
        *("requires_grad_", "share_memory_", "pin_memory", "record_stream", "module_load", "set_", "resize_"),
        *("resize_as_", "storage", "typed_storage", "untyped_storage", "as_strided", "as_strided_", "cuda", "xpu"),
        *("as_strided_scatter", "data_ptr", "grad", "data", "grad_fn", "grad_dtype", "volatile", "retains_grad"),
    )
)
"""Functions that reach beyond the values of a tensor."""


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """All that a file may call, by name."""
    found = {resolve_name(own): own for several in get_overridable_functions().values() for own in several}
    found |= {f"torch.{name}": getattr(torch, name) for name in MAKERS}
    return {name: own for name, own in found.items() if name and may_be_called(name)} | {
        "operator.getitem": operator.getitem
    }


def may_be_called(name: str) -> bool:
    last = name.removesuffix(".__get__").rpartition(".")[2]
    return last not in REFUSED and (last in UNDERSCORED if last.startswith("_") else True)


@functools.cache
def names() -> dict[Callable[..., Any], str]:
    return {own: name for name, own in functions().items()}


VALUES = Values(
    PLAIN | {"value": Kind(Value, lambda own, each: own.number, lambda own, each: Value(checked(own, int)))}
)


def write_branches(own: Branches) -> dict[str, Any]:
    """Branches as JSON.

    Raises:
        TypeError: they called what has no name.
    """
    return {
        "calls": [
            {
                "function": name_of_function(call.function),
                "args": VALUES.write(call.args),
                "kwargs": VALUES.write(call.kwargs),
            }
            for call in own.calls
        ],
        "asked": VALUES.write(own.asked),
        "answers": VALUES.write(own.answers),
        "lines": list(own.lines),
    }


def name_of_function(function: Callable[..., Any]) -> str:
    found = names().get(function)
    if found is None:
        raise TypeError(f"a call of {getattr(function, '__qualname__', function)}, which is no function of PyTorch")
    return found


def read_branches(written: Any, arguments: int) -> Branches:
    """The opposite of `write_branches`.

    Args:
        arguments: how many tensors are among the arguments.

    Raises:
        UnusableError: a call is of something else than a function of PyTorch, or reads what is made later.
    """
    calls = [read_call(own) for own in checked(written["calls"], list)]
    for number, call in enumerate(calls):
        check_numbers((call.args, call.kwargs), arguments + number)
    asked = checked(VALUES.read(written["asked"]), tuple)
    check_numbers(asked, arguments + len(calls))
    if not all(isinstance(own, Value) for own in asked):
        raise UnusableError("it asks for what is no value")
    answers, lines = checked(VALUES.read(written["answers"]), tuple), checked(written["lines"], list)
    if not len(asked) == len(answers) == len(lines):
        raise UnusableError("it asks for other values than it holds answers of")
    return Branches(tuple(calls), asked, answers, tuple(str(own) for own in lines))


def read_call(written: Any) -> Call:
    name = checked(written["function"], str)
    if name not in functions():
        raise UnusableError(f"it calls {shortened(name)}, which is no function of PyTorch")
    args, kwargs = VALUES.read(written["args"]), VALUES.read(written["kwargs"])
    return Call(functions()[name], checked(args, tuple), checked(kwargs, dict))


def check_numbers(values: Any, most: int) -> None:
    """Raise if a value is one that is not made yet."""
    parts = values if isinstance(values, (list, tuple)) else values.values() if isinstance(values, dict) else ()
    for own in parts:
        if isinstance(own, Value) and not 0 <= own.number < most:
            raise UnusableError("it reads a value before that is made")
        check_numbers(own, most)
