"""Which dimension of which value is the token axis: proven by the rules, never guessed from sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
        GraphError: a rule takes dimensions of different sizes for one.
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
    site = next(site for site in sites if class_of[site.q, site.query_dim] == token_class)
    length = shape_of(site.q)[site.query_dim]
    if not isinstance(length, int):
        raise UnsupportedModelError(
            f"the token axis at {describe(site.q)} has a length that depends on values, and no operator that drops "
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
                check_sizes(node, (operand, dim), (node, out))
                classes.union((operand, dim), (node, out))
        for group in own.aligned:
            members = [(tensors[index], dim) for index, dim in group if not same_size(size(tensors[index], dim), 1)]
            for operand, dim in members[1:]:
                check_sizes(node, members[0], (operand, dim))
                classes.union(members[0], (operand, dim))
    return {place: classes[place] for place in list(classes)}


def check_sizes(node: fx.Node, one: tuple[fx.Node | None, int], other: tuple[fx.Node | None, int]) -> None:
    if not same_size(size(*one), size(*other)):
        (first, first_dim), (second, second_dim) = one, other
        raise GraphError(
            f"{describe(node)}: its rule in marche_fx/passes/rules.py takes dimension {first_dim} of {first} (size "
            f"{size(*one)}) and dimension {second_dim} of {second} (size {size(*other)}) for one axis."
        )


def size(node: fx.Node | None, dim: int) -> object:
    assert node is not None
    return shape_of(node)[dim]


def no_attention_message(graph: fx.Graph) -> str:
    mixer = first_mixer(graph)
    because = f" The tokens of its input are mixed first by {describe(mixer)}." if mixer else ""
    return (
        f"found no attention over a token axis, so there is nothing to cache.{because} "
        "marche_fx accelerates models whose tokens meet in attention."
    )


def first_mixer(graph: fx.Graph) -> fx.Node | None:
    """The first operator that mixes the second dimension of an input; an input has the samples of a result."""
    class_of = link_dimensions(graph)
    output = next(node for node in graph.nodes if node.op == "output")
    samples = {class_of[leaf, 0] for leaf in output.all_input_nodes if shape_of(leaf)}
    tokens = {
        class_of[node, 1]
        for node in graph.find_nodes(op="placeholder")
        if len(shape_of(node)) > 1 and class_of[node, 0] in samples
    }
    for node in graph.nodes:
        mixed = [(operands(node)[index], dim) for index, dim in dim_map(node).mixed]
        if any(class_of[operand, dim] in tokens for operand, dim in mixed if operand is not None):
            return node
    return None
