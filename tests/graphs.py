"""Graphs as text, for the examples that show what a pass does."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.captured import Capture


def graph_text(graph: fx.Graph) -> str:
    """One line a node that computes, without placeholders::

        linear = aten.linear(x, weight, bias)
        return linear

    A weight is called by its path, ``p_model_proj_weight`` by ``proj.weight``.
    """
    lines = []
    for node in graph.nodes:
        if node.op == "call_function":
            arguments = [text(argument) for argument in node.args]
            arguments += [f"{name}={text(value)}" for name, value in node.kwargs.items() if name != "pin_memory"]
            lines.append(f"{node.name} = {operator_text(node.target)}({', '.join(arguments)})")
        elif node.op == "output":
            lines.append("return " + ", ".join(text(leaf) for leaf in node.args[0]))
    return "\n".join(lines)


def operator_text(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target).rsplit(".", 1)[0]
    return getattr(target, "__name__", str(target))


def text(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name.removeprefix("p_model_").removeprefix("b_model_").removeprefix("c_model_")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text(item) for item in value) + "]"
    # PyTorch writes an open end of a slice as the largest integer.
    return "end" if isinstance(value, int) and value == torch.iinfo(torch.int64).max else str(value)


def named(graph: fx.Graph, name: str) -> fx.Node:
    return next(node for node in graph.nodes if node.name == name)


class Function(nn.Module):
    """A function of tensors as a model, for graphs of a few operators."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def capture_function(function: Any, *args: Any) -> Capture:
    return capture(Function(function).eval(), "forward", args)
