"""The pipeline: every pass in the order in which it runs. `make_plan` reads, `rewrite` applies what was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .analysis.attention import find_attention_sites
from .analysis.axes import find_token_axes, query_axis
from .analysis.cost import Cost, step_cost
from .analysis.heads import find_head
from .analysis.liveness import find_read_only
from .analysis.mlp import find_mlp_sites
from .analysis.plan import Plan, key_axis
from .analysis.region import find_region
from .capture.capture import capture
from .capture.captured import Capture
from .lower.lower import Incremental, lower
from .lower.products import multiply_by_onednn
from .lower.ranges import Ranges
from .lower.shared import SharedCode
from .rewrite.hooks import Hooks, insert_hooks
from .rewrite.pack import pack
from .rewrite.parts import Split
from .rewrite.sites import label_sites
from .rewrite.split import split
from .rewrite.stages import Stage, cut_stages
from .rewrite.watch import Watched, find_watched
from .shown import capture_text, graph_text, region_text, sites_text, split_text
from .trail import PassRun, Trail, counted

Capturing = Callable[[nn.Module, str, tuple[Any, ...], dict[str, Any]], Capture]
"""``(model, step, args, kwargs) -> capture``"""


def make_plan(
    model: nn.Module,
    step: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    exact_sites: int = 0,
    capturing: Capturing = capture,
) -> Plan:
    """Capture ``model.step(*args, **kwargs)`` and find its token axis, attention and MLP sites, and region.

    Args:
        exact_sites: so many attention sites, from the first on, stay before the region.
        capturing: how to capture it.

    Raises:
        CaptureError: the step cannot be captured.
        UnsupportedModelError: no attention over a token axis was found, or the step has state.
    """
    trail = Trail()
    captured = trail.run(
        "capture",
        lambda: capturing(model, step, args, kwargs or {}),
        lambda own: counted(len(own.graph_module.graph.nodes), "node") + ", without a trace" * own.is_instance,
        capture_text,
    )
    return plan_of(captured, exact_sites=exact_sites, trail=trail)


def plan_of(original: Capture, *, exact_sites: int = 0, trail: Trail | None = None) -> Plan:
    """The plan of a captured step; see `make_plan`."""
    trail = Trail() if trail is None else trail
    packed = trail.run(
        "pack",
        lambda: pack(original),
        lambda own: "every token is kept" if own.capture is original else "dropped tokens are hidden from attention",
        lambda own: "" if own.capture is original else capture_text(own.capture),
    )
    graph = packed.capture.graph_module.graph
    inputs = [leaf.node for leaf in packed.capture.inputs if leaf.node is not None]
    sites = trail.run(
        "attention", lambda: find_attention_sites(graph), lambda own: counted(len(own), "site"), sites_text
    )
    axes = trail.run(
        "axes",
        lambda: find_token_axes(graph, sites, inputs),
        lambda own: " + ".join(map(str, own.lengths)) + " tokens",
    )
    region = trail.run(
        "region",
        lambda: find_region(graph, axes, sites, inputs, packed.visible, exact_sites),
        lambda own: f"{counted(len(own.rows), 'operator')} on rows, {len(own.full)} on all tokens",
        lambda own: region_text(own, graph),
    )
    attended = {axis for site in sites for axis in (query_axis(site, axes.axes), key_axis(site, axes))}
    token_axes = {*axes.token_axes, *attended}
    mlps = trail.run(
        "mlp",
        lambda: tuple(own for own in find_mlp_sites(graph) if axes.axes.dims_with(own.down, token_axes)),
        lambda own: counted(len(own), "site"),
        sites_text,
    )
    return Plan(original, packed.capture, packed.visible, tuple(sites), mlps, axes, region, passes=tuple(trail.runs))


Insert = Callable[[Hooks], "fx.Node | None"]
"""What inserts the measurement of one signal; None where the step has nothing to measure it at."""


@dataclass(frozen=True)
class Rewritten:
    """A step that computes active tokens only.

    Attributes:
        split: its three parts, with hooks. hooked: numbers of the measurements that were inserted.
        watched: values that tell which tokens changed. stages: the prologue, by the inputs that it depends on.
        incremental: the region, compiled or not. lowered: the graph that it runs. passes: those that ran.
    """

    split: Split
    hooked: tuple[int, ...]
    watched: tuple[Watched, ...]
    stages: tuple[Stage, ...]
    incremental: Incremental
    lowered: fx.GraphModule
    cost: Cost
    passes: tuple[PassRun, ...]


def rewrite(
    plan: Plan,
    inserts: Sequence[Insert] = (),
    *,
    skip_unread: bool,
    compile: bool,
    headed: bool = False,
    cache_dtype: torch.dtype | None = None,
    shared: SharedCode | None = None,
    packed: bool = False,
) -> Rewritten:
    """Do what was planned.

    Args:
        inserts: measurements for refresh policies.
        skip_unread: leave out, of active tokens that nobody reads, what no other token reads either.
        compile: compile the layers of what came out. shared: what was compiled of the step for other lengths.
        headed: with ``skip_unread``, cache what a wide result is computed of instead of it.
        cache_dtype: what cached rows are rounded to that other tokens read.
        packed: where compiled, multiply by packed copies of the weights.
    """
    trail, source = Trail(), plan.dense.graph_module
    head = find_head(plan, find_read_only(plan.graph, plan.region)) if skip_unread and headed else None
    plain = trail.run(
        "split",
        lambda: split(
            source, plan.axes, plan.region, plan.sites, skip_unread=skip_unread, head=head, cache_dtype=cache_dtype
        ),
        lambda own: counted(len(own.caches), "cache"),
        split_text,
    )
    label_sites(plain, plan)
    hooked, measured = trail.run(
        "hooks",
        lambda: insert_hooks(plain, plan, inserts),
        lambda own: counted(len(own[1]), "signal"),
        lambda own: split_text(own[0]),
    )
    watched = trail.run(
        "watch",
        lambda: find_watched(plain, plan.region, plan.axes, plan.inputs),
        lambda own: counted(len(own), "value") + " watched",
    )
    before = [node for node in plan.graph.nodes if node.op == "call_function" and plan.region.is_before(node)]
    stages = trail.run(
        "stages",
        lambda: cut_stages(source, before, hooked.prologue.outputs, plan.inputs),
        lambda own: counted(len(own), "stage") + " of the prologue",
    )
    lowered = trail.run(
        "lower",
        lambda: lower(hooked, compile=compile, shared=shared, packed=packed),
        lambda _: "compiled by Inductor" if compile else "not compiled",
        graph_text,
    )
    if compile:
        heads = () if hooked.head is None else (hooked.head.part,)
        for part in (hooked.epilogue, *heads, *(stage.part for stage in stages)):
            multiply_by_onednn(part.module, packed=packed)
    cost = step_cost(plan.graph, plan.axes, plan.region, hooked.read_only, head)
    return Rewritten(hooked, tuple(measured), watched, stages, Ranges(lowered), lowered, cost, tuple(trail.runs))
