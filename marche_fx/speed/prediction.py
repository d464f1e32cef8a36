"""How long a step takes, predicted from the rates of a machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from .. import ops
from ..passes.analysis.cost import meets_all_tokens
from ..passes.analysis.plan import Plan
from ..passes.rules.flops import hint, node_flops
from ..passes.rules.moves import MOVES_TOKENS
from ..runtime.program import Program
from .rates import Rates, rates

aten = torch.ops.aten

PRODUCT, ATTENTION, MAPPED, MOVED, VIEW = "product", "attention", "mapped", "moved", "view"

MAPS = (
    *("gelu", "silu", "relu", "tanh", "sigmoid", "exp", "softmax", "_softmax", "log_softmax", "layer_norm"),
    *("native_layer_norm", "rms_norm", "group_norm", "sin", "cos", "pow", "rsqrt", "sqrt", "mean", "var"),
)
"""Names of operators that compute more of an element than a sum or a copy."""

OBSERVING = (ops.attention_received, ops.weights_received)

COLD = 2.5
"""A call in a model takes so much longer than one that is repeated, whose code and data are at hand."""

SHARE_OF_VIEW = 0.25
"""Of a call: what computes nothing returns early."""

STEP, LAYER, OBSERVE = 54, 12, 4
"""Calls that a step of ours makes besides, as it ranks tokens and keeps a record, a compiled layer as it checks its
inputs, and the observation of one attention site."""

COMPARE = 6
"""Passes over what enters the region: it is compared with what tokens were last computed with, and kept."""


@dataclass(frozen=True)
class Work:
    """What one operator of a step does at its captured sizes.

    Attributes:
        amount: FLOPs of a product or of attention, elements of any other. rows: of a product; of attention a sample's.
        width: channels that go into a product.
        streams: those of its rows; None where it is not computed on rows. meets_all: it grows with the keys too.
        in_region: computed by the rewritten graph; what is before and after it is run operator by operator.
        read_only: computed for those active tokens only that are read.
    """

    kind: str
    amount: float
    rows: float
    streams: tuple[int, ...] | None
    meets_all: bool
    in_region: bool
    read_only: bool = False
    width: float = 0.0


class Prediction:
    """Seconds of a step, of the original run eagerly and of ours.

    Args:
        compiled: whether ours is, so that it calls little but products and attention.
        read_only: what ours computes for those active tokens only that are read.
        observed: attention sites at which the attention of queried tokens is measured.
    """

    def __init__(
        self,
        plan: Plan,
        rates: Rates,
        *,
        compiled: bool = True,
        read_only: Collection[fx.Node] = frozenset(),
        observed: int = 0,
    ) -> None:
        self.lengths = plan.axes.lengths
        self.rates = rates
        self.call = COLD * rates.call
        self.compiled = compiled
        self.work = tuple(work_of(plan, read_only))
        self.entering = sum(count_of(node) for node in plan.region.entries)
        self.observed = [own for own in self.work if own.kind == ATTENTION and own.streams][:observed]

    def original(self, visible: int | None = None) -> float:
        """Of the original, which computes all tokens, or those that it does not drop."""
        share = 1.0 if visible is None else visible / sum(self.lengths)
        return sum(self.seconds(own, share, share) for own in self.work)

    def incremental(self, active: Sequence[int], read: Sequence[int] | None = None) -> float:
        """Of ours with so many active tokens a sample in each stream, of which so many are read, all when omitted."""
        read = active if read is None else read
        layers = sum(own.kind == ATTENTION for own in self.work) if self.compiled else 0
        total = (STEP + LAYER * layers) * self.call + COMPARE * self.entering / self.rates.moved
        for own in self.work:
            share = self.share(own, read if own.read_only else active)
            total += self.seconds(own, share, 1.0, compiled=self.compiled)
        for own in self.observed:
            total += OBSERVE * self.call + self.seconds(own, self.share(own, read), 1.0)
        return total

    def share(self, work: Work, active: Sequence[int]) -> float:
        """Of its rows, those of active tokens."""
        streams = work.streams
        return 1.0 if streams is None else sum(active[i] for i in streams) / sum(self.lengths[i] for i in streams)

    def seconds(self, work: Work, share: float, of_keys: float, *, compiled: bool = False) -> float:
        """Of one operator on a ``share`` of its rows, which meet a share ``of_keys`` of the keys."""
        if work.streams is None:
            share = of_keys = 1.0
        rates, rows = self.rates, share * work.rows
        amount = work.amount * share * (of_keys if work.meets_all else 1.0)
        if work.kind == PRODUCT:
            return amount / (rates.onednn if compiled else rates.products).at(rows, work.width)
        if work.kind == ATTENTION:
            return self.call + amount / rates.attention.at(rows)
        if work.kind == MAPPED:
            return self.call + amount / rates.mapped
        if compiled and work.in_region:
            # Fused with what reads it.
            return 0.0
        return SHARE_OF_VIEW * self.call if work.kind == VIEW else self.call + amount / rates.moved


def prediction_of(program: Program, *, compiled: bool) -> Prediction:
    """Of a captured step, on the device and in the dtype of its weights."""
    plan, rewritten = program.plan, program.split
    observed = sum(node.target in OBSERVING for node in rewritten.incremental.module.graph.nodes)
    return Prediction(plan, rates_for(plan), compiled=compiled, read_only=rewritten.read_only, observed=observed)


def rates_for(plan: Plan) -> Rates:
    """Of the device and dtype that most weights and inputs of a step have."""
    values = [node.meta["val"] for node in (*plan.dense.weights, *plan.inputs)]
    kinds = [(own.device, own.dtype) for own in values if own.is_floating_point()]
    return rates(*Counter(kinds).most_common(1)[0][0])


def work_of(plan: Plan, read_only: Collection[fx.Node] = frozenset()) -> Iterator[Work]:
    """What each operator of the captured step does."""
    region, axes = plan.region, plan.axes
    for node in plan.graph.nodes:
        if node.op != "call_function":
            continue
        on_rows = node in region.rows and node not in region.sources
        streams = region.rows[node].streams if on_rows else None
        flops, elements = node_flops(node), count_of(node)
        meets_all, in_region = meets_all_tokens(node, axes), on_rows or node in region.full
        is_read = node in read_only
        if flops and meets_all:
            tokens = sum(axes.lengths if streams is None else (axes.lengths[number] for number in streams))
            yield Work(ATTENTION, flops, tokens, streams, meets_all, in_region, is_read)
        elif flops:
            width = flops / (2 * elements)
            yield Work(PRODUCT, flops, rows_of(node), streams, meets_all, in_region, is_read, width)
        else:
            yield Work(kind_of(node), elements, 0.0, streams, len(axes.dims.get(node, ())) > 1, in_region, is_read)


def kind_of(node: fx.Node) -> str:
    if node.target in MOVES_TOKENS and node.target not in (aten.clone.default, aten.cat.default):
        return VIEW
    name = getattr(node.target, "_opname", "")
    return MAPPED if name in MAPS else MOVED


def rows_of(node: fx.Node) -> float:
    """Of a product with weights: all dimensions of its value but the channels."""
    return math.prod(hint(size) for size in node.meta["val"].shape[:-1])


def count_of(node: fx.Node) -> float:
    """Elements of an operator's values."""
    values = [own for own in pytree.tree_leaves(node.meta.get("val")) if isinstance(own, Tensor)]
    return float(sum(math.prod(hint(size) for size in own.shape) for own in values))
