"""Which dimension of which value is the token axis: proven by the rules, never guessed from sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx
from torch import fx

from ..errors import GraphError, UnsupportedModelError
from .attention import AttentionSite
from .rules import dim_map, operands, same_size, shape_of
from .source import describe

Dimension = tuple[fx.Node, int]
"""A dimension of a node's value."""


@dataclass(frozen=True)
class TokenAxes:
    """The token axis of a graph.

    Attributes:
        length: its size N.
        dims: for every value that has the token axis its dimensions of it, two where tokens meet tokens ``[.., N, N]``.
        class_of: representative of the axis that a dimension belongs to; equal for one axis.
    """

    length: int
    dims: dict[fx.Node, tuple[int, ...]]
    class_of: dict[Dimension, Dimension]


def find_token_axes(graph: fx.Graph, sites: Sequence[AttentionSite]) -> TokenAxes:
    """Union-find over (node, dimension): the token axis is the one that most sites' queries lie on.

    Raises:
        UnsupportedModelError: there is no attention.
        GraphError: dimensions of different sizes were found to be one axis.
    """
    if not sites:
        raise UnsupportedModelError(no_attention_message(graph))
    class_of = link_dimensions(graph)
    votes = Counter(class_of[site.q, site.query_dim] for site in sites)
    token_class, _ = votes.most_common(1)[0]
    dims: dict[fx.Node, list[int]] = {}
    for (node, dim), found in class_of.items():
        if found == token_class:
            dims.setdefault(node, []).append(dim)
    first, first_dim = sites[0].q, sites[0].query_dim
    length = next(shape_of(node)[own[0]] for node, own in dims.items())
    for node, own in dims.items():
        for dim in own:
            if not same_size(shape_of(node)[dim], length):
                raise GraphError(
                    f"{describe(node)}: dimension {dim} has size {shape_of(node)[dim]} but was found to be the token "
                    f"axis of size {length} of {describe(first)}, dimension {first_dim}. A rule in "
                    "marche_fx/passes/rules.py is wrong for an operator between them."
                )
    if not isinstance(length, int):
        raise UnsupportedModelError(
            f"the token axis at {describe(first)} has a length that depends on values, and no operator that drops "
            "tokens by a mask was recognised before it. marche_fx recognises x[mask.nonzero(as_tuple=True)]."
        )
    return TokenAxes(length, {node: tuple(sorted(own)) for node, own in dims.items()}, class_of)


def link_dimensions(graph: fx.Graph) -> dict[Dimension, Dimension]:
    """Which dimensions are one axis, as a representative of each."""
    classes = networkx.utils.UnionFind()
    for node in graph.nodes:
        for dim in range(len(shape_of(node))):
            classes[node, dim]
        if node.op != "call_function":
            continue
        own, tensors = dim_map(node), operands(node)
        for (index, dim), out in own.output.items():
            operand = tensors[index]
            if operand is not None:
                classes.union((operand, dim), (node, out))
        for group in own.aligned:
            members = [(tensors[index], dim) for index, dim in group if not same_size(size(tensors[index], dim), 1)]
            if len(members) > 1:
                classes.union(*members)
    return {place: classes[place] for place in list(classes)}


def size(node: fx.Node | None, dim: int) -> object:
    assert node is not None
    return shape_of(node)[dim]


def no_attention_message(graph: fx.Graph) -> str:
    """Name what mixes rows of the first input instead of attention."""
    mixer = next((describe(node) for node in graph.nodes if mixes_rows(node)), None)
    because = f" Tokens of an input are mixed first by {mixer}." if mixer else ""
    return (
        f"found no attention over a token axis, so there is nothing to cache.{because} "
        "marche_fx accelerates models whose tokens meet in attention."
    )


def mixes_rows(node: fx.Node) -> bool:
    """Whether the operator mixes a dimension of an activation other than its last."""
    if node.op != "call_function":
        return False
    own = dim_map(node)
    return any(
        operand is not None and operand.op != "placeholder" and index == operand_index and dim < len(shape_of(operand)) - 1
        for operand_index, operand in enumerate(operands(node))
        for index, dim in own.mixed
        if len(shape_of(operand) if operand is not None else ()) > 2
    )


def in_order(graph: fx.Graph, nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """``nodes`` in the order in which ``graph`` computes them."""
    wanted = set(nodes)
    return [node for node in graph.nodes if node in wanted]
