"""What comes nearest to attention in a model that has none, for the error that refuses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import fx

from ..graph.operands import argument, operands, shape_of
from ..graph.reach import descendants
from ..graph.source import describe
from ..rules.table import dim_map
from .attention import CONTRACTIONS, SOFTMAX, contracted_operands, contractions_above, contractions_below
from .dimensions import Axes, Axis
from .mlp import find_mlp_sites

aten = torch.ops.aten

MOST = 5
"""Candidates that a message names."""


def no_attention_message(graph: fx.Graph, axes: Axes, inputs: Iterable[fx.Node]) -> str:
    """Why a step without attention is refused: what mixes its tokens first, and what comes nearest to attention.

    Args:
        inputs: the tensors that a step is called with.
    """
    mixer = first_mixer(graph, axes)
    because = f" The tokens of its input are mixed first by {describe(mixer)}." if mixer else ""
    found = list(candidates(graph, axes, descendants(inputs)))
    nearest = "".join(f"\n  {line}" for line in found[:MOST])
    rest = f"\n  and {len(found) - MOST} more" if len(found) > MOST else ""
    return (
        f"found no attention over a token axis, so there is nothing to cache.{because} "
        "marche_fx accelerates models whose tokens meet in attention."
        + (f" What comes nearest:{nearest}{rest}" if found else "")
    )


def candidates(graph: fx.Graph, axes: Axes, activations: set[fx.Node]) -> Iterator[str]:
    """A line for each subgraph that is like attention, or like what stands between attentions; the nearest first."""
    softmaxes = [node for node in graph.nodes if node.target in SOFTMAX and node in activations]
    near = {node: what_softmax_lacks(node) for node in softmaxes}
    yield from (f"{describe(node)}: {lack}" for node, (lack, sides) in near.items() if sides)
    yield from linear_attention(graph, axes, activations)
    yield from (f"{describe(node)}: {lack}" for node, (lack, sides) in near.items() if not sides)
    mlps = find_mlp_sites(graph)
    if mlps:
        count = "an MLP" if len(mlps) == 1 else f"the first of {len(mlps)} MLPs"
        yield f"{describe(mlps[0].down)}: {count}, which reads no other token and so has nothing to cache"


def what_softmax_lacks(softmax: fx.Node) -> tuple[str, int]:
    """Why it is not the softmax of attention, and how many of the two contractions around it there are."""
    dim = argument(softmax, "dim") % len(shape_of(softmax))
    has_scores = any(True for _ in contractions_above(softmax, dim))
    has_values = any(True for _ in contractions_below(softmax, dim))
    scores = f"what it weighs along dimension {dim} is no product of queries and keys"
    values = f"no contraction sums values with its weights over dimension {dim}"
    if has_scores and has_values:
        return "its queries are not one dimension of the product that it weighs", 2
    if has_scores or has_values:
        return (values if has_scores else scores), 1
    return f"{scores}, and {values}", 0


def linear_attention(graph: fx.Graph, axes: Axes, activations: set[fx.Node]) -> Iterator[str]:
    """Contractions of activations that compare tokens with tokens, or sum over tokens, with no softmax between."""
    tokens = token_axes(graph, axes)
    compared: list[fx.Node] = []
    for node in graph.nodes:
        if node.target not in CONTRACTIONS:
            continue
        factors = [factor for _, factor in contracted_operands(node)]
        if len(factors) < 2 or not activations.issuperset(factors):
            continue
        if compares_tokens(node, axes):
            compared.append(node)
            sizes = list(shape_of(node))
            yield f"{describe(node)}: compares tokens with tokens, {sizes}, but no softmax follows (linear attention)"
        elif summed_axes(node, axes) & tokens and node not in descendants(compared):
            yield f"{describe(node)}: sums over the tokens without the weights of a softmax (linear attention)"


def compares_tokens(node: fx.Node, axes: Axes) -> bool:
    """Whether a product is ``[.., N, N]``: one axis twice, once of each factor."""
    own = dim_map(node)
    (one, _), (other, _) = contracted_operands(node)
    first = {out for (index, _), out in own.output.items() if index == one}
    second = {out for (index, _), out in own.output.items() if index == other}
    rows, columns = first - second, second - first
    return bool({axes.of(node, dim) for dim in rows} & {axes.of(node, dim) for dim in columns})


def summed_axes(node: fx.Node, axes: Axes) -> set[Axis]:
    """The axes that a contraction sums over."""
    own = dim_map(node)
    return {
        axes.of(operand, dim)
        for index, operand in contracted_operands(node)
        for dim in range(len(shape_of(operand)))
        if (index, dim) not in own.output
    }


def first_mixer(graph: fx.Graph, axes: Axes) -> fx.Node | None:
    """The first operator that mixes the tokens of an input."""
    tokens = token_axes(graph, axes)
    for node in graph.nodes:
        mixed = [(operands(node)[index], dim) for index, dim in dim_map(node).mixed]
        if any(axes.of(operand, dim) in tokens for operand, dim in mixed if operand is not None):
            return node
    return None


def token_axes(graph: fx.Graph, axes: Axes) -> set[Axis]:
    """What would be tokens if there were attention: ``[B, N, ...]``, or the pixels that the first convolution reads.

    An input has the samples of a result.
    """
    output = next(node for node in graph.nodes if node.op == "output")
    samples = {axes.of(leaf, 0) for leaf in output.all_input_nodes if shape_of(leaf)}
    entering = [
        node for node in graph.find_nodes(op="placeholder") if len(shape_of(node)) > 1 and axes.of(node, 0) in samples
    ]
    convolutions = graph.find_nodes(op="call_function", target=aten.convolution.default)
    pixels: set[Axis] = set()
    if convolutions:
        image = operands(convolutions[0])[0]
        assert image is not None
        pixels = {axes.of(image, dim) for dim in range(2, len(shape_of(image)))}
    found: set[Axis] = set()
    for node in entering:
        found |= pixels if pixels and len(shape_of(node)) > 3 else {axes.of(node, 1)}
    return found
