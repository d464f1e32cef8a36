"""How much a step computes, as a function of how many rows it computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx

from .axes import TokenAxes
from .region import Region
from .rules import dim_map, operands, shape_of

aten = torch.ops.aten

CONTRACTIONS = (
    aten.linear.default,
    aten.addmm.default,
    aten.mm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.matmul.default,
    aten.einsum.default,
)


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a step's contractions (linears and attention; the rest is small beside them).

    Attributes:
        per_row: of the region, for one token of one sample, whatever the number of other tokens.
        per_pair: of the region, for one query and one key of one sample: the two products of attention.
        fixed: per step, what runs in full whatever is active: prologue, epilogue and mixing operators.
        samples, tokens: B and N.
    """

    per_row: float
    per_pair: float
    fixed: float
    samples: int
    tokens: int

    def incremental(self, active: int) -> float:
        """With so many active tokens a sample: rows x weights + rows x tokens."""
        return self.fixed + self.samples * active * (self.per_row + self.tokens * self.per_pair)

    def original(self, visible: int | None = None) -> float:
        """Of the original step, which computes all N tokens, or those that it does not drop."""
        count = self.tokens if visible is None else visible
        return self.fixed + self.samples * count * (self.per_row + count * self.per_pair)


def step_cost(graph: fx.Graph, axes: TokenAxes, region: Region, samples: int) -> Cost:
    """Count the contractions of ``graph``, apart for what runs on active rows."""
    per_row = per_pair = fixed = 0.0
    for node in graph.nodes:
        flops = node_flops(node)
        if node not in region.active_dim or node in region.sources:
            fixed += flops
        elif meets_all_tokens(node, axes, region):
            per_pair += flops / (samples * axes.length**2)
        else:
            per_row += flops / (samples * axes.length)
    return Cost(per_row, per_pair, fixed, samples, axes.length)


def meets_all_tokens(node: fx.Node, axes: TokenAxes, region: Region) -> bool:
    """Whether each row of ``node`` reads another token axis: attention, or one of its two products."""
    if len(axes.dims.get(node, ())) > 1:
        return True
    own = dim_map(node)
    return any(
        (index, dim) in own.mixed
        for index, operand in enumerate(operands(node))
        if operand is not None
        for dim in axes.dims.get(operand, ())
    )


def node_flops(node: fx.Node) -> float:
    """Multiplications and additions of a contraction at its captured sizes; 0 for other operators."""
    if node.target is aten.scaled_dot_product_attention.default:
        q, k, v = (shape_of(operand) for operand in operands(node)[:3] if operand is not None)
        pairs = math.prod(hint(size) for size in q[:-1]) * hint(k[-2])
        return 2.0 * pairs * (hint(q[-1]) + hint(v[-1]))
    if node.target not in CONTRACTIONS:
        return 0.0
    own, tensors = dim_map(node), operands(node)
    summed = 1
    for index, operand in enumerate(tensors):
        if operand is not None:
            sizes = [size for dim, size in enumerate(shape_of(operand)) if (index, dim) not in own.output]
            summed = max(summed, math.prod(hint(size) for size in sizes))
    return 2.0 * summed * math.prod(hint(size) for size in shape_of(node))


def hint(size: int | torch.SymInt) -> int:
    """A size as a number: a symbolic one, which counts kept tokens, at what it was when the step was captured."""
    return size if isinstance(size, int) else int(size.node.hint or 0)
