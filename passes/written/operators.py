"""Operators by name, and which of them a file may call: PyTorch's own that compute tensors of tensors, no others."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload, OpOverloadPacket

from ..graph.opaque import OPAQUE
from .refused import UnusableError
from .values import shortened

OWN = ("aten", "prims", OPAQUE.namespace)
"""PyTorch's own operators: those that models call, and those that some of them are made of; and the one of ours."""

NAME = re.compile(r"(\w+)\.(\w+)\.(\w+)")
"""As in ``aten.linear.default``."""

MAKERS = (
    *("arange", "empty", "empty_strided", "empty_permuted", "eye", "full", "hann_window"),
    *("iota", "linspace", "logspace"),
    *("ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tril_indices", "triu_indices", "zeros"),
)
"""Operators that make tensors of numbers alone."""

SIZES = ("sym_size", "sym_stride", "sym_numel", "sym_storage_offset")
"""Operators that make numbers of tensors."""

PYTHON: dict[str, Callable[..., Any]] = {
    **{
        f"operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "abs", "getitem"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_"),
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_max", "sym_min", "sym_not", "sym_int", "sym_float", "sym_ite")
    },
}
"""Functions on sizes, and the one that takes parts of lists. No power and no shift, whose values have no bound."""

PYTHON_NAMES = {function: name for name, function in PYTHON.items()}


def name_of_operator(target: Any) -> str:
    """The name by which a file has an operator.

    Raises:
        TypeError: no file may call it.
    """
    if isinstance(target, OpOverload):
        if target.namespace in OWN and not is_pure(target):
            raise TypeError(f"{target}, which does more than compute tensors of tensors")
        return str(target)
    if target not in PYTHON_NAMES:
        raise TypeError(f"a call of {getattr(target, '__name__', target)}, which is no operator")
    return PYTHON_NAMES[target]


def operator_of_name(name: Any, allowed: Collection[str]) -> Any:
    """The opposite of `name_of_operator`.

    Args:
        allowed: operators beside PyTorch's own, as ``library::name``.

    Raises:
        UnusableError: there is none of this name, or no file may call it.
    """
    if type(name) is str and name in PYTHON:
        return PYTHON[name]
    parts = NAME.fullmatch(name) if type(name) is str else None
    if parts is None:
        raise UnusableError(f"it calls {shortened(name)}, which is no operator")
    namespace, own, overload = parts.groups()
    if namespace not in OWN and f"{namespace}::{own}" not in allowed:
        raise UnusableError(
            f"it calls {namespace}::{own}, which is no operator of PyTorch; if you know what it does, "
            f"load_captures(..., operators=[{f'{namespace}::{own}'!r}]) lets files call it"
        )
    found = overload_of(namespace, own, overload)
    if found is None:
        raise UnusableError(f"it calls {name}, which is no operator of this process")
    if namespace in OWN and not is_pure(found):
        raise UnusableError(f"it calls {name}, which does more than compute tensors of tensors")
    return found


@functools.cache
def overload_of(namespace: str, name: str, overload: str) -> OpOverload | None:
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if not isinstance(packet, OpOverloadPacket) or overload not in packet.overloads():
        return None
    found: OpOverload = getattr(packet, overload)
    return found


@functools.cache
def is_pure(own: OpOverload) -> bool:
    """Whether an operator of PyTorch makes tensors and nothing else, as all of a functional graph do."""
    schema = own._schema
    takes_tensors = any("Tensor" in str(argument.type) for argument in schema.arguments)
    gives_tensors = bool(schema.returns) and all("Tensor" in str(each.type) for each in schema.returns)
    name = schema.name.partition("::")[2]
    if name in SIZES:
        return True
    return not schema.is_mutable and gives_tensors and (takes_tensors or name in MAKERS)


def check_call(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
    """Raise if an operator cannot be called so, or does not give a value of this kind.

    Raises:
        UnusableError: which operator it is.
    """
    if not isinstance(target, OpOverload):
        check_python(target, args, kwargs)
        return
    schema = target._schema
    given = {argument.name: own for argument, own in zip(schema.arguments, args)}
    known = {argument.name: argument for argument in schema.arguments}
    by_position = sum(not argument.kwarg_only for argument in schema.arguments)
    if len(args) > by_position or not {*kwargs} <= known.keys() - given.keys():
        raise UnusableError(f"it calls {target} with arguments that it does not have")
    given |= kwargs
    for name, argument in known.items():
        if name not in given:
            if not argument.has_default_value():
                raise UnusableError(f"it calls {target} without its argument {name}")
        elif not fits(str(argument.type), given[name]):
            raise UnusableError(f"it calls {target} with {shortened(given[name])} as {name}, a {argument.type}")
    if [str(own.type) for own in schema.returns] == ["Tensor"] and not isinstance(value, Tensor):
        raise UnusableError(f"it has no tensor for what {target} gives")


def check_python(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The same for functions on sizes; the one part that is taken is of a list of tensors."""
    if target is operator.getitem:
        values, number = args
        held = values.meta["val"] if isinstance(values, fx.Node) else None
        if kwargs or not isinstance(held, (list, tuple)) or type(number) is not int or not 0 <= number < len(held):
            raise UnusableError("it takes a part of what has no such part")
    elif kwargs or not all(is_number(own) for own in args):
        raise UnusableError(f"it calls {PYTHON_NAMES[target]} on what is no number")


def fits(kind: str, value: Any) -> bool:
    """Whether a value can be an argument of a type, as schemas name it."""
    if kind.startswith("Optional["):
        return value is None or fits(kind[len("Optional[") : -1], value)
    if kind.startswith("List["):
        inner = kind[len("List[") : -1]
        if isinstance(value, (list, tuple)):
            return all(fits(inner, own) for own in value)
        # One number for all: ``int[2] stride``.
        return inner in NUMBERS and fits(inner, value)
    if kind == "Tensor":
        # A number is a tensor of no dimensions.
        return is_number(value) or (isinstance(value, fx.Node) and isinstance(value.meta["val"], Tensor))
    if kind in NUMBERS:
        return is_number(value) or isinstance(value, NUMBERS[kind])
    return kind in OTHERS and isinstance(value, OTHERS[kind])


NUMBERS: dict[str, tuple[type, ...]] = {
    # Schemas say int of dtypes and the like.
    "int": (torch.dtype, torch.layout, torch.memory_format),
    "SymInt": (),
    "float": (),
    "bool": (),
    "number": (complex,),
    "Scalar": (complex,),
}

OTHERS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "Device": (torch.device,),
    "ScalarType": (torch.dtype,),
    "Layout": (torch.layout,),
    "MemoryFormat": (torch.memory_format,),
    "Generator": (),
}


def is_number(value: Any) -> bool:
    """Whether it is a number, or a node that gives one."""
    own = value.meta["val"] if isinstance(value, fx.Node) else value
    return isinstance(own, (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool))
