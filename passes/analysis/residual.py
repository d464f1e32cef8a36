"""Residual branches of a denoiser, told by its sums: ``x + gate * mlp(norm(x))``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch import fx

from ..graph.operands import argument, operands, shape_of
from ..graph.source import module_path
from ..rules.flops import node_flops
from ..rules.table import is_pointwise

aten = torch.ops.aten


@dataclass(frozen=True)
class ResidualBranch:
    """What a sum adds to a value that it is computed of.

    Attributes:
        add: ``stream + output``. stream: ``x``, which goes on beside the branch. output: ``gate * mlp(norm(x))``, which
            depends on the noisy value by way of the stream alone.
        product: ``mlp(norm(x))``, the last product on the way to the output: what follows, such as a gate, costs
            nothing.
        inside: the operators between stream and sum that depend on the noisy value.
    """

    add: fx.Node
    stream: fx.Node
    output: fx.Node
    product: fx.Node
    inside: frozenset[fx.Node] = field(repr=False)

    @property
    def path(self) -> str:
        return module_path(self.add)

    @property
    def flops(self) -> float:
        return sum(node_flops(node) for node in self.inside)


def find_residual_branches(nodes: Iterable[fx.Node], moving: Collection[fx.Node]) -> tuple[ResidualBranch, ...]:
    """The innermost residual branches with products, in the order in which they are added.

    Args:
        nodes: in their order. moving: values that depend on the noisy one, those that ``nodes`` start from among them.
    """
    branches = [own for node in nodes for own in branches_of(node, moving)]
    sums = {own.add for own in branches}
    return tuple(own for own in branches if own.inside.isdisjoint(sums))


def branches_of(node: fx.Node, moving: Collection[fx.Node]) -> Iterable[ResidualBranch]:
    """The branch that ends in ``node``, if it is a sum of one with its stream."""
    if node.target is not aten.add.Tensor or argument(node, "alpha") != 1:
        return
    left, right = operands(node)
    if left is None or right is None or shape_of(left) != shape_of(right):
        return
    for stream, output in ((left, right), (right, left)):
        inside = between(stream, output, moving)
        if inside is not None and any(node_flops(own) for own in inside):
            yield ResidualBranch(node, stream, output, last_product(output, inside), frozenset(inside))


def between(stream: fx.Node, output: fx.Node, moving: Collection[fx.Node]) -> set[fx.Node] | None:
    """The operators from ``stream`` to ``output``; None where the latter depends on another noisy value too."""
    inside: set[fx.Node] = set()
    pending = [output]
    while pending:
        node = pending.pop()
        if node is stream or node in inside:
            continue
        before = [own for own in node.all_input_nodes if own in moving]
        if node not in moving or not before:
            return None
        inside.add(node)
        pending.extend(before)
    return inside


def last_product(output: fx.Node, inside: Collection[fx.Node]) -> fx.Node:
    """The last product before ``output`` after which every operator is cheap and reads one value of the branch."""
    node = output
    while not node_flops(node):
        before = [own for own in node.all_input_nodes if own in inside]
        if not is_pointwise(node.target) or len(before) != 1:
            return output
        (node,) = before
    return node
