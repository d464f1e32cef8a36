"""Make an exported graph plainer: the same values by fewer kinds of operators."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from itertools import accumulate

import torch
from torch import fx

from ..graph.operands import argument, shape_of

aten = torch.ops.aten

CASTS_WEIGHTS = (aten.linear.default, aten.addmm.default, aten.mm.default, aten.matmul.default)
"""Products that autocast runs in its own dtype."""

SPLITS = (aten.split.Tensor, aten.split_with_sizes.default)

COPIES = ("aten.clone.default", "aten.alias.default", "aten.detach.default", "prims.copy_strided.default")
"""By name, since not every torch has the last, which is left of filling rows of a transposed tensor."""


def remove_weight_casts(graph: fx.Graph, weights: Iterable[fx.Node]) -> None:
    """Under autocast, let matrix products cast their weights themselves when they run: PyTorch does so once, not at
    every call."""
    for weight in weights:
        for cast in [user for user in weight.users if user.target is aten._to_copy.default]:
            if all(user.target in CASTS_WEIGHTS for user in cast.users):
                cast.replace_all_uses_with(weight)
                graph.erase_node(cast)


def remove_checks(graph: fx.Graph) -> None:
    """Erase assertions and the arithmetic on sizes that only they used."""
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in getattr(node.target, "__name__", ""):
            graph.erase_node(node)
    graph.eliminate_dead_code()


def remove_copies(graph: fx.Graph) -> None:
    """Erase copies that an in-place program needs and a functional one does not (inactive dropout leaves one)."""
    for node in list(graph.nodes):
        copies = str(node.target) in COPIES and not node.kwargs
        # A result that is an argument itself keeps its copy, so that the caller's tensor is not handed back to it.
        returned = any(user.op == "output" for user in node.users)
        if copies and not (returned and node.args[0].op == "placeholder"):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def settle_slices(graph: fx.Graph) -> None:
    """Make slices what indexing makes of them where sizes are numbers, and not where they are symbols.

    Before:  taken = slice(x [2, 40], 1, 0, 40);  first = slice(taken, 1, None, 20)
    After:   first = slice(x [2, 40], 1, 0, 20)
    """
    for node in graph.find_nodes(op="call_function", target=aten.slice.Tensor):
        operand, begin = node.args[0], node.args[2:3]
        if begin == (None,):
            node.args = (*node.args[:2], 0, *node.args[3:])
        size = shape_of(operand)[argument(node, "dim")]
        start, end, step = (argument(node, name) for name in ("start", "end", "step"))
        # A size that is a symbol, and with it an end, is a number later.
        to_end = end is None or (isinstance(end, int) and isinstance(size, int) and end >= size)
        is_whole = to_end and start in (None, 0) and step == 1
        returned = any(user.op == "output" for user in node.users)
        if is_whole and not (returned and operand.op == "placeholder"):
            node.replace_all_uses_with(operand)
            graph.erase_node(node)


def split_by_slices(graph: fx.Graph) -> None:
    """Replace the parts of a split by slices, which every pass follows one by one.

    Before:  split = split_with_sizes(x, [5, 3], 1);  text = getitem(split, 1)
    After:   text = slice(x, 1, 5, 8)
    """
    for split in [node for node in graph.nodes if node.target in SPLITS]:
        operand = split.args[0]
        dim = argument(split, "dim") % len(shape_of(operand))
        ends = [0, *accumulate(part.shape[dim] for part in split.meta["val"])]
        if not all(isinstance(end, int) for end in ends):
            continue
        for part in list(split.users):
            assert part.target is operator.getitem
            number = part.args[1]
            with graph.inserting_before(part):
                bounds = ends[number], ends[number + 1]
                taken = graph.create_node("call_function", aten.slice.Tensor, (operand, dim, *bounds), name="slice_1")
            taken.meta = {**split.meta, "val": part.meta["val"]}
            part.replace_all_uses_with(taken)
            graph.erase_node(part)
        graph.erase_node(split)
