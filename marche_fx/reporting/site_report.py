"""What is done with each attention and MLP site, which operators run in full, and what each of them costs."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ..passes.analysis.attention import AttentionSite
from ..passes.analysis.mlp import MlpSite
from ..passes.analysis.plan import Plan
from ..passes.graph.operands import argument, operands, shape_of
from ..passes.graph.reach import ancestors, descendants
from ..passes.graph.source import describe, module_path, operator_name, source_line
from ..passes.rewrite.parts import CacheSpec, Split
from ..passes.rules.flops import node_flops
from ..passes.rules.moves import MOVES, MOVES_TOKENS, REPEATS
from ..passes.rules.table import dim_map, has_rule

aten = torch.ops.aten

POOLS = (
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
)
BY_POSITION = (
    aten.constant_pad_nd.default,
    aten.roll.default,
    aten.flip.default,
    aten.index_select.default,
    aten.index.Tensor,
    aten.gather.default,
)
"""Operators with a rule that mixes, which compute nothing."""


@dataclass(frozen=True)
class SiteReport:
    """An attention or MLP site and what is done with it.

    Attributes:
        kind: ``"attention"`` or ``"MLP"``. size: heads and widths in words.
        claimed: whether active tokens alone are recomputed. status: how, or the first condition that failed.
        rows, active_rows: of each stream of tokens that the site computes, of all tokens and of the active ones.
        flops, active_flops: of attention its two products, of an MLP its linears.
        cache_bytes: of the caches that keys and values are read from; sites may share one.
    """

    kind: str
    path: str
    line: str
    size: str
    claimed: bool
    status: str
    rows: tuple[int, ...]
    active_rows: tuple[int, ...]
    flops: float
    active_flops: float
    cache_bytes: int


@dataclass(frozen=True)
class FullOperator:
    """An operator inside the region that runs on all tokens, whatever is active.

    Attributes:
        reason: why. has_rule: whether what it does to dimensions is known.
        flops: of one step. share: of the step's FLOPs. cache_bytes: of the caches that it reads.
    """

    operator: str
    path: str
    line: str
    reason: str
    has_rule: bool
    flops: float
    share: float
    cache_bytes: int


def byte_count(specs: Iterable[CacheSpec]) -> int:
    return sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs)


def caches_read(values: Iterable[fx.Node], plan: Plan, rewritten: Split) -> set[CacheSpec]:
    """The caches that all rows of ``values`` come from, moved or repeated or not."""
    specs = {spec.value: spec for spec in rewritten.caches}
    found: set[CacheSpec] = set()
    seen: set[fx.Node] = set()
    pending = list(values)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in specs and not plan.region.repeats_rows(node):
            found.add(specs[node])
        elif node in plan.region.inside and node.target in MOVES_TOKENS:
            pending.extend(node.all_input_nodes)
    return found


# ---------------------------------------------------------------------------------------------------------- sites


def attention_report(site: AttentionSite, plan: Plan, rewritten: Split, active: Sequence[int]) -> SiteReport:
    """An attention site, where ``active`` tokens of each stream are recomputed."""
    claimed, status = attention_status(site, plan, rewritten)
    heads = heads_of(site, plan)
    products = [node for node in (site.product, site.node) if node is not None]
    return SiteReport(
        "attention",
        site.path,
        site.line,
        f"{heads} heads x {site.head_width}",
        claimed,
        status,
        *site_rows(site.node, math.prod(shape_of(site.q)[:-1]) // heads, plan, active),
        *site_flops(products, plan, active),
        byte_count(caches_read([site.k, site.v], plan, rewritten)),
    )


def heads_of(site: AttentionSite, plan: Plan) -> int:
    """How many heads there are, which some models put before the samples: ``[H, B, N, d]``."""
    shape = shape_of(site.q)
    beside = 3 - site.query_dim
    is_first = len(shape) == 4 and beside in (1, 2) and plan.axes.axes.of(site.q, beside) == plan.region.samples_axis
    return int(shape[0]) if is_first else site.heads


def mlp_report(site: MlpSite, plan: Plan, active: Sequence[int]) -> SiteReport:
    """An MLP site, where ``active`` tokens of each stream are recomputed; it reads no cache."""
    claimed, status = mlp_status(site, plan)
    return SiteReport(
        "MLP",
        site.path,
        site.line,
        f"{site.width} -> {site.hidden}, {site.activation_name}",
        claimed,
        status,
        *site_rows(site.down, math.prod(shape_of(site.down)[:-1]), plan, active),
        *site_flops([*site.up, site.down], plan, active),
        0,
    )


def computes_rows(node: fx.Node, plan: Plan) -> bool:
    """Whether ``node`` is computed on active rows."""
    return node in plan.region.rows and node not in plan.region.sources


def site_rows(node: fx.Node, rows: int, plan: Plan, active: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows of each stream that a site computes, of all tokens and of the active ones; ``rows`` where it has none."""
    if not computes_rows(node, plan):
        return (int(rows),), (int(rows),)
    streams = plan.region.rows[node].streams
    return (
        tuple(plan.samples * plan.axes.lengths[number] for number in streams),
        tuple(plan.samples * active[number] for number in streams),
    )


def site_flops(nodes: Iterable[fx.Node], plan: Plan, active: Sequence[int]) -> tuple[float, float]:
    """FLOPs of ``nodes`` for all tokens and for the active ones."""
    total = with_active = 0.0
    for node in nodes:
        streams = plan.region.rows[node].streams if computes_rows(node, plan) else ()
        tokens = sum(plan.axes.lengths[number] for number in streams)
        computed = sum(active[number] for number in streams) / tokens if streams else 1.0
        total += node_flops(node)
        with_active += node_flops(node) * computed
    return total, with_active


def attention_status(site: AttentionSite, plan: Plan, rewritten: Split) -> tuple[bool, str]:
    """Whether an attention site is computed for active tokens only; what it reads, or why it is not."""
    if site.node in plan.region.full:
        return False, f"runs on all tokens: {why_not_rows(site.node, plan)}"
    if not computes_rows(site.node, plan):
        return False, outside(site.node, plan)
    cached = {spec.value for spec in rewritten.caches if spec.role == "attention"}
    if site.k in cached and site.v in cached:
        return True, "keys and values cached"
    if site.k in plan.region.inside:
        return True, "keys and values cached before they are reshaped"
    return True, "keys and values from outside the region, read whole"


def mlp_status(site: MlpSite, plan: Plan) -> tuple[bool, str]:
    if site.down in plan.region.full:
        return False, f"runs on all tokens: {why_not_rows(site.down, plan)}"
    return (True, "active tokens only") if computes_rows(site.down, plan) else (False, outside(site.down, plan))


def outside(node: fx.Node, plan: Plan) -> str:
    """Why a site is not in the region."""
    if not plan.region.is_before(node):
        return f"after the region: {why_not_rows(node, plan)}"
    if node not in descendants(plan.inputs):
        return "before the region: it depends on no input of the step"
    end = end_of_tokens(node, plan)
    if end is not None:
        lack = "" if has_rule(end) else ", which has no rule"
        return f"before the region: its tokens go no further than {describe(end)}{lack}"
    if node not in plan.axes.dims:
        return "before the region: its rows are not tokens of the token axis"
    return "before the region: no attention over the token axis comes before it, and tokens are mixed after it"


def end_of_tokens(node: fx.Node, plan: Plan) -> fx.Node | None:
    """The first operator on the way from a site to the region whose value has none of the site's axes of tokens."""
    axes = plan.axes.axes
    attended = {axes.of(site.q, site.query_dim) for site in plan.sites}
    own = {
        axis for dim in range(len(shape_of(node))) for axis, _ in axes.parts(node, dim, attended) if axis in attended
    }
    between = descendants([node]) & ancestors(plan.region.entries)
    for user in plan.graph.nodes:
        reads = user in between and any(axes.dims_with(operand, own) for operand in user.all_input_nodes)
        if reads and user is not node and not axes.dims_with(user, own):
            return user
    return None


def why_not_rows(node: fx.Node, plan: Plan) -> str:
    """Why a node that depends on rows does not consist of them: what it is computed from that mixes them first."""
    before = ancestors([node]) - {node}
    mixer = next((own for own in plan.graph.nodes if own in before and reads_rows_whole(own, plan)), None)
    if mixer is not None:
        return f"{describe(mixer)} mixes tokens before it"
    return "its rows are not tokens of the token axis"


def reads_rows_whole(node: fx.Node, plan: Plan) -> bool:
    """Whether ``node`` reads rows without consisting of them, other than to move them."""
    return (
        node in plan.region.inside
        and (node not in plan.region.rows or node in plan.region.full)
        and node.target not in MOVES_TOKENS
        and reads_rows(node, plan)
    )


def reads_rows(node: fx.Node, plan: Plan) -> bool:
    return any(operand in plan.region.rows for operand in node.all_input_nodes)


# ------------------------------------------------------------------------------------------------ operators in full


def full_report(node: fx.Node, plan: Plan, rewritten: Split, total: float) -> FullOperator:
    """An operator that runs on all tokens in a step of ``total`` FLOPs."""
    return FullOperator(
        operator_name(node),
        module_path(node),
        source_line(node),
        why_in_full(node, plan),
        has_rule(node),
        node_flops(node),
        node_flops(node) / max(total, 1),
        byte_count(caches_read(node.all_input_nodes, plan, rewritten)),
    )


def behind(plan: Plan, rewritten: Split) -> list[fx.Node]:
    """What runs on all tokens too, though no row enters it directly, and costs something.

    Contractions computed from what runs in full or is moved, and operators that take or join rows by position, as a
    shift of tokens does, for which no attention keeps the cache already.
    """
    attended = caches_read([value for site in plan.sites for value in (site.k, site.v)], plan, rewritten)

    def costs(node: fx.Node) -> bool:
        if node.target not in MOVES_TOKENS:
            return node_flops(node) > 0
        moves_rows = reads_rows(node, plan) and node.target not in (*MOVES, *REPEATS)
        return moves_rows and not caches_read(node.all_input_nodes, plan, rewritten) <= attended

    direct = set(plan.in_full)
    return [node for node in plan.graph.nodes if node in plan.region.full - direct and costs(node)]


def without_rule(plan: Plan) -> list[fx.Node]:
    """Operators outside the region that were taken to mix everything because they have no rule."""
    changing = descendants(plan.inputs)
    return [
        node
        for node in plan.graph.nodes
        if node.op == "call_function"
        and node in changing
        and node not in plan.region.full
        and node.target is not operator.getitem
        and not has_rule(node)
    ]


def register(node: fx.Node) -> str:
    return f"marche_fx.register_rule(torch.ops.{operator_name(node)}, ...)"


def why_in_full(node: fx.Node, plan: Plan) -> str:
    """What an operator does to the rows that it reads, in words."""
    if not has_rule(node):
        return f"has no rule, so it is taken to mix everything; if it does not, say so: {register(node)}"
    kernel = window(node, plan)
    if kernel:
        return f"mixes a window of {kernel} tokens"
    if node.target in BY_POSITION or node.target in MOVES_TOKENS:
        return "leaves tokens out, moves or joins them"
    own, rows = dim_map(node), plan.region.rows
    read = [(index, rows[value].dim) for index, value in enumerate(operands(node)) if value in rows]
    if not read:
        return "is computed from what runs on all tokens"
    if all(place in own.output and place not in own.mixed for place in read):
        return "keeps tokens apart, but not those of a sample"
    if all(place not in own.output for place in read) and node not in plan.axes.dims:
        return "reduces the tokens of a sample to one value"
    return "mixes all tokens"


def window(node: fx.Node, plan: Plan) -> str:
    """How many positions along each dimension of tokens a convolution or pooling reads, ``3 x 3``; empty for others."""
    x, *others = operands(node)
    if node.target is aten.convolution.default:
        kernel = list(shape_of(others[0])[2:])
        spread = list(argument(node, "dilation"))
    elif node.target in POOLS:
        kernel, spread = list(argument(node, "kernel_size")), [1]
    else:
        return ""
    assert x is not None
    first = len(shape_of(x)) - len(kernel)
    tokens = [dim - first for dim in plan.axes.dims.get(x, ()) if dim >= first] or range(len(kernel))
    # One number stands for all dimensions.
    sizes = [(int(kernel[dim]) - 1) * int(spread[min(dim, len(spread) - 1)]) + 1 for dim in tokens]
    return " x ".join(map(str, sizes))
