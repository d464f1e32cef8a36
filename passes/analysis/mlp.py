"""Find MLPs: linear, activation (gated or not), linear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from ..graph.operands import operands, shape_of
from ..graph.source import module_path, operator_name, source_line
from ..rules.table import dim_map

aten = torch.ops.aten

LINEAR = (aten.linear.default, aten.addmm.default, aten.mm.default)
ACTIVATIONS = {
    getattr(aten, name).default
    for name in ("gelu", "silu", "relu", "sigmoid", "tanh", "erf", "leaky_relu", "elu", "mish", "softplus", "hardswish")
}


@dataclass(frozen=True)
class MlpSite:
    """``down(activation(up(x)))``; a gated MLP has two ``up`` linears or one whose output is cut in two.

    Attributes:
        up: the linears that widen. activation: the nonlinear node. down: the linear whose value is the output.
    """

    up: tuple[fx.Node, ...]
    activation: fx.Node
    down: fx.Node

    @property
    def width(self) -> int:
        return int(shape_of(self.down)[-1])

    @property
    def hidden(self) -> int:
        down_input = operands(self.down)[0]
        assert down_input is not None
        return int(shape_of(down_input)[-1])

    @property
    def activation_name(self) -> str:
        return operator_name(self.activation).removeprefix("aten.")

    @property
    def path(self) -> str:
        return module_path(self.down)

    @property
    def line(self) -> str:
        return source_line(self.down)


def find_mlp_sites(graph: fx.Graph) -> list[MlpSite]:
    """Every MLP of ``graph``, in the order of its last linear: ``linear(gelu(linear(x)))``."""
    sites = []
    for node in graph.nodes:
        if node.target in LINEAR:
            site = mlp_ending_at(node)
            if site is not None:
                sites.append(site)
    return sites


def mlp_ending_at(down: fx.Node) -> MlpSite | None:
    """Walk up from ``down`` to other linears; what stands between must be token-wise and hold an activation."""
    up: list[fx.Node] = []
    activations: list[fx.Node] = []
    seen: set[fx.Node] = set()
    start = next((operand for operand in operands(down) if operand is not None and operand.op == "call_function"), None)
    pending = [] if start is None else [start]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.target in LINEAR:
            up.append(node)
        elif node.op == "call_function" and keeps_rows(node):
            if node.target in ACTIVATIONS:
                activations.append(node)
            pending.extend(operand for operand in operands(node) if operand is not None and operand.op != "placeholder")
        else:
            return None
    return MlpSite(tuple(up), activations[0], down) if up and activations else None


def keeps_rows(node: fx.Node) -> bool:
    """Whether every dimension but the last stays in place: no token or head is moved or mixed."""
    own = dim_map(node)
    rank = len(shape_of(node))
    return all(
        own.output.get((index, dim)) == dim + rank - len(shape_of(operand)) and (index, dim) not in own.mixed
        for index, operand in enumerate(operands(node))
        if operand is not None and operand.op != "placeholder"
        for dim in range(len(shape_of(operand)) - 1)
    )
