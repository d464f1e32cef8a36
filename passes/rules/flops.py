"""How much one operator computes."""

from __future__ import annotations

import math

import torch
from torch import fx

from ..graph.counts import counted
from ..graph.opaque import OPAQUE, flops_of_row
from ..graph.operands import argument, operands, shape_of
from .table import dim_map

aten = torch.ops.aten

UNBOUNDED = 2**40
"""No size of rows is as large; PyTorch's own bound of a size of which it knows nothing is."""

CONTRACTIONS = (
    aten.linear.default,
    aten.addmm.default,
    aten.mm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.matmul.default,
    aten.einsum.default,
)


def node_flops(node: fx.Node) -> float:
    """Multiplications and additions of a contraction at its captured sizes; 0 for other operators."""
    if node.target is aten.scaled_dot_product_attention.default:
        q, k, v = (shape_of(operand) for operand in operands(node)[:3] if operand is not None)
        pairs = math.prod(hint(size) for size in q[:-1]) * hint(k[-2])
        return 2.0 * pairs * (hint(q[-1]) + hint(v[-1]))
    if node.target is aten.convolution.default:
        x, weight, _ = operands(node)
        assert x is not None
        assert weight is not None
        counted = x if argument(node, "transposed") else node
        return 2.0 * math.prod(hint(size) for size in (*shape_of(counted), *shape_of(weight)[1:]))
    if node.target is OPAQUE:
        row = flops_of_row(argument(node, "owner"), argument(node, "path"))
        return row * math.prod(hint(size) for size in shape_of(node)[:-1])
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
    """A size as a number: a symbolic one, which counts kept tokens, at what it was when the step was captured.

    One of rows picked by values counts as many as the real call picked, or, where that is not known, as may be.
    """
    if isinstance(size, int):
        return size
    if size.node.hint is not None:
        return int(size.node.hint)
    known = counted(size)
    return most(size) if known is None else known


def most(size: torch.SymInt) -> int:
    """The largest that a size may be, by what is known of it."""
    bound = size.node.shape_env.bound_sympy(size.node.expr).upper
    return int(bound) if bound.is_finite and bound < UNBOUNDED else 0
