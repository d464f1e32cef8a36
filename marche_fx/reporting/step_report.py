"""What was found in one captured step, what is done with it, and what is left alone and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ..checks import few
from ..passes.analysis.cost import Cost, step_cost
from ..passes.analysis.plan import Plan
from ..passes.graph.opaque import OPAQUE
from ..passes.graph.operands import argument
from ..passes.rewrite.parts import Split
from ..passes.rules.flops import node_flops
from ..passes.trail import PassRun
from ..speed.prediction import Prediction
from .site_report import (
    FullOperator,
    SiteReport,
    attention_report,
    behind,
    byte_count,
    full_report,
    mlp_report,
    without_rule,
)
from .tables import full_table, joined, memory, place, short, site_table

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of active tokens at which a saving is predicted, beside the one that was asked for."""

TYPICAL = {
    "it reads the rows that come next, as MAR's in 64 steps": 0.25,
    "a block of text, as LLaDA's": 0.16,
    "all masked rows, as MaskGIT's": 0.9,
}
"""Shares of the rows that loops of a kind compute with the default policy."""


@dataclass(frozen=True)
class StepReport:
    """One captured step.

    Attributes:
        samples: B. streams: tokens N, of each stream of tokens. nodes: operators of the captured step.
        fraction: the share of tokens that the report takes to be active. active: how many of each stream.
        sites: every attention and MLP site. in_full: operators inside the region that read rows and run on all tokens.
            behind: what runs on all tokens too and costs FLOPs or caches. without_rule: operators outside the region
            that were taken to mix everything.
        fixed_flops: of what runs on all tokens before, inside and after the region.
        cache_bytes: what the caches of a session take, by role.
        rounded: by role what the same would take unrounded, where a `cache_dtype` rounds some. rounding: how far it
            moved results of rows computed beside cached ones, at the first call; None where it was not measured.
        passes: those that ran, in their order, with what each found and how long it took.
        moves_all: values that every token of a sample reads, so that all are recomputed when one moves.
        packed_bytes: what packed copies of weights take, which every session reads.
        called: children that are called as they are, by path, with the FLOPs of each.
        speedups: predicted, over the original run eagerly, by the share of active tokens; empty where not asked for.
        original_seconds: predicted too, of the original run eagerly.
    """

    name: str
    samples: int
    streams: tuple[int, ...]
    drops_tokens: bool
    nodes: int
    fraction: float
    active: tuple[int, ...]
    sites: tuple[SiteReport, ...]
    in_full: tuple[FullOperator, ...]
    behind: tuple[FullOperator, ...]
    without_rule: tuple[FullOperator, ...]
    fixed_flops: dict[str, float]
    cache_bytes: dict[str, int]
    cost: Cost
    rounded: dict[str, int] = field(default_factory=dict)
    rounding: float | None = None
    passes: tuple[PassRun, ...] = ()
    moves_all: tuple[str, ...] = ()
    speedups: dict[float, float] = field(default_factory=dict)
    original_seconds: float | None = None
    packed_bytes: int = 0
    called: dict[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(self.streams)

    @property
    def flops(self) -> float:
        """Of the original step."""
        return self.cost.original()

    @property
    def active_flops(self) -> float:
        """Of the rewritten step where ``fraction`` of the tokens is active."""
        return self.cost.incremental(self.active)

    def saving(self, share: float) -> float:
        """FLOPs of the original over those with ``share`` of the tokens active."""
        return self.flops / max(self.cost.incremental(active_tokens(self.streams, share)), 1)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        found = plain(self)
        found |= {"tokens": self.tokens, "flops": self.flops, "active_flops": self.active_flops}
        found["read_only_share"] = self.read_only_share
        found["saving"] = {f"{share:g}": self.saving(share) for share in self.shares}
        return dict(sorted(found.items()))

    @property
    def read_only_share(self) -> float:
        """Of the FLOPs of a token, those that are skipped in steps in which nobody reads its result."""
        whole = sum(own.of(own.tokens, own.tokens, own.keys) for own in self.cost.streams)
        return sum(own.of(0, own.tokens, own.keys) for own in self.cost.streams) / max(whole, 1)

    @property
    def shares(self) -> list[float]:
        return sorted({*SHARES, self.fraction})

    def with_speedups(self, prediction: Prediction) -> StepReport:
        """The same with what a step gains by these shares of active tokens."""
        original = prediction.original()
        found = {share: original / prediction.incremental(active_tokens(self.streams, share)) for share in self.shares}
        return dataclasses.replace(self, speedups=found, original_seconds=original)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drops = ", drops masked tokens" if self.drops_tokens else ""
        yield Text(
            f"{self.name}: {self.samples} samples x {joined(self.streams)} tokens{drops}, {self.nodes} operators, "
            f"{short(self.flops)}FLOPs",
            "bold",
        )
        claimed = sum(site.claimed for site in self.sites)
        yield Text(
            f"{claimed} of {len(self.sites)} sites are recomputed for active tokens only; "
            f"at {self.fraction:.0%} these are {joined(self.active)} a sample"
        )
        if len(self.streams) > 1:
            for number, own in enumerate(self.cost.streams):
                each = short(own.of(1, 1, own.keys))
                yield Text(f"stream {number}: {own.tokens} tokens, {each}FLOPs each, {own.keys} keys to attend to")
        yield site_table(self.sites, self.fraction)
        if self.called:
            share = sum(self.called.values()) / max(self.flops, 1)
            yield Text(
                f"called as they are, as token_wise says, with active tokens alone: {few(self.called, NAMED)}; "
                f"{share:.0%} of the FLOPs"
            )
        if self.in_full or self.behind:
            yield full_table([*self.in_full, *self.behind], self.active_flops, self.fraction)
        for bare in self.without_rule:
            yield Text(f"outside the region: {place(bare.operator, bare.path, bare.line)} {bare.reason}", "yellow")
        if self.read_only_share:
            yield Text(
                f"{self.read_only_share:.0%} of a token's FLOPs are skipped in steps in which nobody reads its result"
            )
        parts = [
            f"{role} {memory(size)}" + (f", rounded from {memory(self.rounded[role])}" if role in self.rounded else "")
            for role, size in self.cache_bytes.items()
        ]
        yield Text(f"caches of a session: {'; '.join(parts) if self.rounded else ', '.join(parts)}")
        if self.rounding is not None:
            yield Text(f"rows that read rounded caches differed by at most {self.rounding:.2g} of their norm")
        if self.packed_bytes:
            yield Text(f"packed copies of weights, beside these: {memory(self.packed_bytes)}")
        fixed = [f"{flops / max(self.flops, 1):.1%} {part}" for part, flops in self.fixed_flops.items()]
        yield Text(f"FLOPs that no choice of tokens saves: {', '.join(fixed)} the region")
        passes = ", ".join(f"{own.name} {own.seconds:.2f} s ({own.found})" for own in self.passes)
        yield Text(f"passes: {passes}", "dim")
        savings = ", ".join(f"{self.saving(share):.1f}x at {share:.0%}" for share in self.shares)
        yield Text(f"fewer FLOPs by the share of active tokens: {savings}")
        typical = ", ".join(
            f"{self.saving(share):.1f}x where {name} ({share:.0%} of the rows)" for name, share in TYPICAL.items()
        )
        yield Text(f"what a loop reads decides, which only its run tells (print(report) after it): {typical}")
        for name in self.moves_all:
            yield Text(f"every token is recomputed when {name}, moves; tolerance= says how far it may", "yellow")
        if self.speedups:
            speedups = ", ".join(f"{speedup:.1f}x at {share:.0%}" for share, speedup in self.speedups.items())
            yield Text(f"predicted speed-up over the original run eagerly, by rates measured here: {speedups}")


def step_report(
    plan: Plan,
    rewritten: Split,
    fraction: float = 0.1,
    passes: tuple[PassRun, ...] = (),
    moves_all: tuple[str, ...] = (),
    rounding: float | None = None,
    packed_bytes: int = 0,
) -> StepReport:
    flops = {node: node_flops(node) for node in plan.graph.nodes}
    active = active_tokens(plan.axes.lengths, fraction)
    total = sum(flops.values())
    fixed = {"before": 0.0, "inside": 0.0, "after": 0.0}
    for node in flops:
        if plan.region.is_before(node):
            fixed["before"] += flops[node]
        elif node in plan.region.full or node not in plan.region.rows:
            fixed["inside" if node in plan.region.full else "after"] += flops[node]
    cache_bytes: dict[str, int] = {}
    rounded: dict[str, int] = {}
    for role in dict.fromkeys(spec.role for spec in rewritten.caches):
        of_role = [spec for spec in rewritten.caches if spec.role == role]
        cache_bytes[role] = byte_count(of_role)
        if any(spec.rounded_to is not None for spec in of_role):
            rounded[role] = byte_count(dataclasses.replace(spec, rounded_to=None) for spec in of_role)
    return StepReport(
        name=plan.dense.step,
        samples=plan.samples,
        streams=plan.axes.lengths,
        drops_tokens=plan.visible is not None,
        nodes=sum(node.op == "call_function" for node in flops),
        fraction=float(fraction),
        active=active,
        sites=(
            *(attention_report(site, plan, rewritten, active) for site in plan.sites),
            *(mlp_report(site, plan, active) for site in plan.mlps),
        ),
        in_full=tuple(full_report(node, plan, rewritten, total) for node in plan.in_full),
        behind=tuple(full_report(node, plan, rewritten, total) for node in behind(plan, rewritten)),
        without_rule=tuple(full_report(node, plan, rewritten, total) for node in without_rule(plan)),
        fixed_flops=fixed,
        cache_bytes=cache_bytes,
        cost=step_cost(plan.graph, plan.axes, plan.region, rewritten.read_only),
        rounded=rounded,
        rounding=rounding,
        passes=passes,
        moves_all=moves_all,
        packed_bytes=packed_bytes,
        called={
            argument(node, "path"): flops[node] for node in plan.graph.find_nodes(op="call_function", target=OPAQUE)
        },
    )


NAMED = 3
"""Children that are named one by one."""


def active_tokens(streams: Sequence[int], fraction: float) -> tuple[int, ...]:
    """Active tokens of each stream, one at least."""
    return tuple(max(1, round(fraction * tokens)) for tokens in streams)


def plain(value: Any) -> Any:
    """Dataclasses as dicts with sorted keys, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {own.name: getattr(value, own.name) for own in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
