"""Branches on arguments: decided with the real values while tracing, and asked again at each call."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from .derived import memory_of
from .lines import line_being_run


@dataclass(frozen=True)
class Value:
    """A tensor among the arguments, or what a call returned, by its number; the arguments come first."""

    number: int


@dataclass(frozen=True)
class Call:
    """A function that the step called itself, with a `Value` in place of each tensor."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Branches:
    """What a step asked of its arguments' values, and was told.

    Attributes:
        calls: from the tensors among the arguments to the answers. asked: which values are the answers.
        answers: what it was told in the captured call. lines: where it asked, ``model.py:41``.
    """

    calls: tuple[Call, ...]
    asked: tuple[Value, ...]
    answers: tuple[Any, ...]
    lines: tuple[str, ...]

    def hold_for(self, tensors: list[Tensor]) -> bool:
        """Whether the step would be told the same of these arguments. Reads values on the host."""
        values = Values(self.calls, tensors)
        return tuple(map(values.of, self.asked)) == self.answers


class Values:
    """Makes calls, more of which may be recorded later, as their values are asked for."""

    def __init__(self, calls: Sequence[Call], tensors: list[Tensor]) -> None:
        self.calls = calls
        self.arguments = len(tensors)
        # What a step writes in place it does not write for the caller here.
        with untraced():
            self.known: list[Any] = [own.clone() for own in tensors]

    def of(self, value: Value) -> Any:
        with untraced():
            # In order: a later call may write in place what an earlier one made.
            while len(self.known) <= value.number:
                call = self.calls[len(self.known) - self.arguments]
                args, kwargs = pytree.tree_map_only(Value, lambda own: self.known[own.number], (call.args, call.kwargs))
                self.known.append(call.function(*args, **kwargs))
        return self.known[value.number]


@contextmanager
def untraced() -> Iterator[None]:
    """Compute with real tensors, also in the middle of a trace."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        yield


QUESTIONS: tuple[Callable[..., Any], ...] = (
    *(Tensor.__bool__, Tensor.__contains__, Tensor.item, Tensor.tolist, Tensor.__int__, Tensor.__float__),
    *(Tensor.__index__, Tensor.is_nonzero, torch.is_nonzero, torch.equal, Tensor.equal, torch.allclose),
    Tensor.allclose,
)
"""Functions that return values of tensors to Python."""


class FromArguments(TorchFunctionMode):
    """Follow what is computed of the arguments and of constants alone, and answer questions about it.

    Args:
        traced: the arguments as the step meets them. real: with their values.
    """

    def __init__(self, traced: list[Tensor], real: list[Tensor]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.values = Values(self.calls, real)
        self.known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        for number, tensor in enumerate(traced):
            self.known[tensor] = Value(number)
        self.asked: list[Value] = []
        self.lines: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not all(tensor in self.known for tensor in tensors) or is_drawn(func) or holds_symbols((args, kwargs)):
            result = func(*args, **kwargs)
            if writes(func, kwargs):
                self.forget(tensors)
            return result
        if func in QUESTIONS and tensors:
            self.asked.append(self.record(func, args, kwargs))
            self.lines.append(line_being_run())
            return self.values.of(self.asked[-1])
        result = func(*args, **kwargs)
        found = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        if found or writes(func, kwargs):
            self.follow(result, self.record(func, args, kwargs))
        return result

    def record(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        self.calls.append(Call(func, *pytree.tree_map_only(Tensor, self.known.__getitem__, (args, kwargs))))
        return Value(self.values.arguments + len(self.calls) - 1)

    def forget(self, written: list[Tensor]) -> None:
        """Values that the arguments do not decide may now be in any tensor that shares memory with one of these."""
        memories = [memory_of(own) for own in written]
        for tensor in list(self.known):
            own = memory_of(tensor)
            if own is None or any(other is None or own == other for other in memories):
                del self.known[tensor]

    def follow(self, result: Any, value: Value) -> None:
        if isinstance(result, Tensor):
            self.known[result] = value
        elif isinstance(result, (tuple, list)):
            for number, part in enumerate(result):
                self.follow(part, self.record(operator.getitem, (value, number), {}))

    def found(self) -> Branches:
        answers = tuple(map(self.values.of, self.asked))
        return Branches(tuple(self.calls), tuple(self.asked), answers, tuple(self.lines))


DRAWS = (
    *("rand", "normal", "bernoulli", "multinomial", "dropout"),
    *("uniform", "exponential", "cauchy", "geometric", "poisson"),
)
"""In the names of functions that draw random numbers."""


def is_drawn(func: Callable[..., Any]) -> bool:
    return any(word in getattr(func, "__name__", "") for word in DRAWS)


def holds_symbols(call: Any) -> bool:
    return any(isinstance(leaf, (torch.SymInt, torch.SymFloat, torch.SymBool)) for leaf in pytree.tree_leaves(call))


def writes(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    """Whether a function writes an operand in place."""
    name = getattr(func, "__name__", "")
    is_operator = name.startswith("__") and name.endswith("__")
    if is_operator:
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__index__", "__int__", "__invert__"))
    return name.endswith("_") or kwargs.get("out") is not None or name == "__set__"
