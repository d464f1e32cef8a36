"""Branches on arguments: decided with the real values while tracing, and asked again at each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Branches:
    """What a step asked of its arguments' values, and was told.

    Attributes:
        graph: from the tensors among the arguments to the answers, by the functions that the step called itself.
        answers: what it was told in the captured call.
    """

    graph: fx.Graph
    answers: tuple[Any, ...]

    def hold_for(self, tensors: list[Tensor]) -> bool:
        """Whether the step would be told the same of these arguments. Reads values on the host."""
        return Answers(self.graph, tensors).outputs() == self.answers


class Answers:
    """Computes nodes of a growing graph as they are asked for."""

    def __init__(self, graph: fx.Graph, tensors: list[Tensor]) -> None:
        self.graph = graph
        inputs = graph.find_nodes(op="placeholder")
        # What a step writes in place it does not write for the caller here.
        with untraced():
            self.values: dict[fx.Node, Any] = {node: own.clone() for node, own in zip(inputs, tensors, strict=True)}

    def of(self, node: fx.Node) -> Any:
        with untraced():
            for own in self.graph.nodes:
                # In order: a later one may write in place what an earlier one made.
                if own.op == "call_function" and own not in self.values:
                    args, kwargs = fx.map_arg((own.args, own.kwargs), self.values.__getitem__)
                    self.values[own] = own.target(*args, **kwargs)
                if own is node:
                    break
        return self.values[node]

    def outputs(self) -> tuple[Any, ...]:
        (output,) = self.graph.find_nodes(op="output")
        return tuple(self.of(node) for node in output.args[0])


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
        self.graph = fx.Graph()
        self.nodes: WeakIdKeyDictionary = WeakIdKeyDictionary()
        for number, tensor in enumerate(traced):
            self.nodes[tensor] = self.graph.placeholder(f"argument_{number}")
        self.answers = Answers(self.graph, real)
        self.asked: list[fx.Node] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not all(tensor in self.nodes for tensor in tensors) or is_drawn(func) or holds_symbols((args, kwargs)):
            result = func(*args, **kwargs)
            if writes(func, kwargs):
                # Values that the arguments do not decide may now be in any tensor that shares memory.
                self.nodes.clear()
            return result
        if func in QUESTIONS and tensors:
            node = self.record(func, args, kwargs)
            self.asked.append(node)
            return self.answers.of(node)
        result = func(*args, **kwargs)
        found = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        if found or writes(func, kwargs):
            self.follow(result, self.record(func, args, kwargs))
        return result

    def record(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        own = [pytree.tree_map_only(Tensor, self.nodes.__getitem__, part) for part in (args, kwargs)]
        return self.graph.call_function(func, *own)

    def follow(self, result: Any, node: fx.Node) -> None:
        if isinstance(result, Tensor):
            self.nodes[result] = node
        elif isinstance(result, (tuple, list)):
            for number, part in enumerate(result):
                self.follow(part, self.graph.call_function(getitem, (node, number)))

    def found(self) -> Branches:
        answers = tuple(self.answers.of(node) for node in self.asked)
        self.graph.output(tuple(self.asked))
        return Branches(self.graph, answers)


DRAWS = (
    *("rand", "normal", "bernoulli", "multinomial", "dropout"),
    *("uniform", "exponential", "cauchy", "geometric", "poisson"),
)
"""In the names of functions that draw random numbers."""


def is_drawn(func: Callable[..., Any]) -> bool:
    return any(word in getattr(func, "__name__", "") for word in DRAWS)


def holds_symbols(call: Any) -> bool:
    return any(isinstance(leaf, (torch.SymInt, torch.SymFloat, torch.SymBool)) for leaf in pytree.tree_leaves(call))


def getitem(parts: Any, number: int) -> Any:
    return parts[number]


def writes(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    """Whether a function writes an operand in place."""
    name = getattr(func, "__name__", "")
    is_operator = name.startswith("__") and name.endswith("__")
    if is_operator:
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__index__", "__int__", "__invert__"))
    return name.endswith("_") or kwargs.get("out") is not None or name == "__set__"
