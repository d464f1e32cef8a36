"""Operators of a captured step on other operands, or on rows of these."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from ..analysis.rows import Rows
from ..graph.operands import map_operands, operands, same_size, shape_of
from ..rules.reshapes import RESHAPES

aten = torch.ops.aten


def copied(
    graph: fx.Graph,
    node: fx.Node,
    operand: Callable[[int, fx.Node | None], fx.Node | None],
    rows: Rows | None = None,
) -> fx.Node:
    """``node`` on other operands; on rows, a baked size of the token axis becomes -1, what the rows have."""
    args, kwargs = map_operands(node, operand)
    target = node.target
    if target in RESHAPES:
        # The layout of gathered rows is not the original's, so a view may need a copy.
        target = aten.reshape.default
    if rows is not None and target in (aten.squeeze.dim, aten.squeeze.dims):
        # A single active row is still a dimension.
        own = operands(node)[0]
        assert own is not None
        given = [args[1]] if isinstance(args[1], int) else args[1]
        dims = [dim % len(shape_of(own)) for dim in given]
        target = aten.squeeze.dims
        args = (args[0], [dim for dim in dims if same_size(shape_of(own)[dim], 1)])
    if rows is not None and node.target in (*RESHAPES, aten.expand.default):
        # An inferred size would be a second -1.
        inferred = node.target in RESHAPES
        shape = shape_of(node)
        sizes = [shape[dim] if given == -1 and inferred else given for dim, given in enumerate(args[1])]
        sizes[rows.dim] = -1
        args = (args[0], sizes, *args[2:])
    found = graph.create_node("call_function", target, args, kwargs, name=node.name)
    found.meta = {name: value for name, value in node.meta.items() if name != "val"}
    return found
