"""A graph with symbolic sizes as the graph that a trace of these sizes alone would be."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from .normalise import settle_slices, split_by_slices
from .sizes import SYMBOLIC, Sizes, evaluated


def specialised(module: fx.GraphModule, sizes: Sizes) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
    """``module`` with numbers in place of symbols, and the new nodes by the old ones.

    Before:  size = sym_size(ids [2, s0], 1);  arange = arange(0, size);  y = view(x [2, s0, 8], [2, size, 4, 2])
    After:   arange = arange(0, 48);  y = view(x [2, 48, 8], [2, 48, 4, 2])
    """
    graph, mode = fx.Graph(), FakeTensorMode()
    values: dict[fx.Node, Any] = {}

    def argument(own: Any) -> Any:
        return values[own] if isinstance(own, fx.Node) else evaluated(own, sizes)

    for node in module.graph.nodes:
        args, kwargs = map_aggregate(node.args, argument), map_aggregate(node.kwargs, argument)
        kept = node.meta.get("val")
        if node.op == "call_function" and isinstance(kept, SYMBOLIC):
            values[node] = number_of(node, args, kwargs, sizes)
            continue
        # Numbered anew, as the arithmetic on sizes is gone.
        name = re.sub(r"_\d+$", "", node.name) if node.op == "call_function" else node.name
        values[node] = graph.create_node(node.op, node.target, args, kwargs, name, node.type)
        values[node].meta = {**node.meta, "val": at_sizes(kept, sizes, mode)}
    split_by_slices(graph)
    settle_slices(graph)
    nodes = {node: own for node, own in values.items() if isinstance(own, fx.Node)}
    return fx.GraphModule(module, graph), nodes


def number_of(node: fx.Node, args: Any, kwargs: Any, sizes: Sizes) -> Any:
    """What arithmetic on sizes makes for ``sizes``: Python's own, as it would be in a trace of them."""
    if any(isinstance(own, fx.Node) for own in pytree.tree_leaves((args, kwargs))):
        # The size of a tensor.
        return evaluated(node.meta["val"], sizes)
    target: Any = node.target
    return target(*args, **kwargs)


def at_sizes(value: Any, sizes: Sizes, mode: FakeTensorMode) -> Any:
    """The fake of a value, or of several, for ``sizes``."""
    if isinstance(value, (list, tuple)):
        return type(value)(at_sizes(own, sizes, mode) for own in value)
    if not isinstance(value, Tensor):
        return evaluated(value, sizes)
    shape, stride = ([evaluated(size, sizes) for size in own] for own in (value.shape, value.stride()))
    with mode:
        return torch.empty_strided(shape, stride, dtype=value.dtype, device=value.device)
