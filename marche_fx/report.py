"""What was found in a model, what is done with it, what is left alone and why, and what a session computed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text
from torch import fx, nn

from .errors import ArgumentError
from .passes.attention import AttentionSite
from .passes.cost import Cost, step_cost
from .passes.flops import node_flops
from .passes.mlp import MlpSite
from .passes.plan import Plan, make_plan
from .passes.rules import has_rule
from .passes.source import describe, module_path, operator_name
from .passes.split import CacheSpec, Split, split
from .session import Session
from .transform import method_names, optimization_of

WIDTH = 120


@dataclass(frozen=True)
class SiteReport:
    """An attention or MLP site and what is done with it.

    Attributes:
        kind: ``"attention"`` or ``"MLP"``. size: heads and widths in words.
        status: ``"cached"``, or the first condition that keeps the site from being recomputed for active tokens only.
    """

    kind: str
    path: str
    line: str
    size: str
    status: str


@dataclass(frozen=True)
class StepReport:
    """One captured step.

    Attributes:
        samples: B. streams: tokens N, of each stream of tokens. nodes: operators of the captured step. sites: every attention and MLP site.
        full: operators that run on all tokens inside the region, with their share of the step's FLOPs.
        cache_bytes: what the caches of a session take, by role.
    """

    name: str
    samples: int
    streams: tuple[int, ...]
    drops_tokens: bool
    nodes: int
    sites: tuple[SiteReport, ...]
    full: tuple[tuple[str, float], ...]
    cache_bytes: dict[str, int]
    cost: Cost

    @property
    def tokens(self) -> int:
        return sum(self.streams)

    def saving(self, share: float) -> float:
        """FLOPs of the original over those with ``share`` of the tokens active."""
        return self.cost.original() / self.cost.incremental([max(1, round(share * n)) for n in self.streams])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drops = ", drops masked tokens" if self.drops_tokens else ""
        yield Text(
            f"{self.name}: {self.samples} samples x {' + '.join(map(str, self.streams))} tokens{drops}, {self.nodes} operators",
            "bold",
        )
        table = Table("site", "module", "source", "size", "status")
        for site in self.sites:
            table.add_row(site.kind, site.path, site.line, site.size, site.status)
        yield table
        for operator, share in self.full:
            yield Text(f"runs on all tokens: {operator}, {share:.0%} of the step's FLOPs", "yellow")
        parts = ", ".join(f"{role} {size / 2**20:.1f}" for role, size in self.cache_bytes.items())
        yield Text(f"caches, MiB a session: {parts}")
        savings = ", ".join(f"{self.saving(share):.1f}x at {share:.0%}" for share in (0.05, 0.1, 0.25, 0.5, 1.0))
        yield Text(f"fewer FLOPs by the share of active tokens: {savings}")


@dataclass(frozen=True)
class SessionReport:
    """What the last session computed, by step method."""

    rows: tuple[tuple[str, int, int, int, float, float], ...]
    """``(step method, calls, rows, rows of the original, FLOPs, FLOPs of the original)``"""

    @property
    def flops_ratio(self) -> float:
        """FLOPs computed over those of the original."""
        return sum(row[4] for row in self.rows) / sum(row[5] for row in self.rows)

    @property
    def rows_ratio(self) -> float:
        return sum(row[2] for row in self.rows) / sum(row[3] for row in self.rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table("last session", "calls", "rows computed", "rows of the original", "FLOPs ratio")
        for name, calls, rows, original, flops, original_flops in self.rows:
            table.add_row(name, str(calls), f"{rows:,}", f"{original:,}", f"{flops / original_flops:.3f}")
        yield table


@dataclass(frozen=True)
class Report:
    """Printable; `save` writes it to a file.

    Attributes:
        model: class name. steps: one for each capture. session: the last one that ended.
        notes: how to read it when it is empty.
    """

    model: str
    steps: tuple[StepReport, ...]
    session: SessionReport | None = None
    notes: tuple[str, ...] = ()
    graphs: tuple[Any, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.model, "bold underline")
        yield from self.steps
        if self.session is not None:
            yield self.session
        for note in self.notes:
            yield Text(note)

    def __str__(self) -> str:
        return as_text(self)

    def save(self, path: str | Path) -> None:
        """Write the report and every rewritten graph, node by node, as ``.html`` or ``.txt``.

        Raises:
            ArgumentError: the name has another ending.
        """
        path = Path(path)
        console = Console(record=True, width=WIDTH, file=io.StringIO())
        console.print(self)
        for name, rewritten in self.graphs:
            console.print(graph_table(name, rewritten))
        if path.suffix == ".html":
            path.write_text(console.export_html())
        elif path.suffix == ".txt":
            path.write_text(console.export_text())
        else:
            raise ArgumentError(f"a report is saved as .html or .txt, got {path.name!r}")


def report(optimized: nn.Module) -> Report:
    """What `transform` made of a model, so far: steps are captured at their first call.

    Raises:
        ArgumentError: the model was not made by `transform`.
    """
    optimization = optimization_of(optimized)
    programs = [program for step in optimization.steps.values() for program in step.programs]
    notes = () if programs else ("No step has been called yet; it is captured at its first call.",)
    session = optimization.last_session
    return Report(
        type(optimized).__name__,
        tuple(step_report(program.plan, program.split) for program in programs),
        session_report(session) if session is not None and session.records else None,
        notes,
        tuple((program.plan.dense.step, program.split) for program in programs),
    )


def explain(model: nn.Module, *args: Any, step: str | None = None, **kwargs: Any) -> Report:
    """What `transform` would make of ``model.step(*args, **kwargs)``; runs nothing and changes nothing.

    ``step`` is the method's name, ``"forward"`` when omitted.

    Raises:
        CaptureError, UnsupportedModelError: as a transformed model would at its first call.
    """
    (name,) = method_names(model, step, default=("forward",), argument="step")
    plan = make_plan(model, name, args, kwargs)
    rewritten = split(plan.dense.graph_module, plan.axes, plan.region, plan.sites)
    return Report(type(model).__name__, (step_report(plan, rewritten),), graphs=((name, rewritten),))


def step_report(plan: Plan, rewritten: Split) -> StepReport:
    total = sum(node_flops(node) for node in plan.graph.nodes)
    full = tuple(
        (describe(node) + ("" if has_rule(node) else ", an operator without a rule"), node_flops(node) / max(total, 1))
        for node in plan.in_full
    )
    cache_bytes: dict[str, int] = {}
    for spec in rewritten.caches:
        cache_bytes[spec.role] = cache_bytes.get(spec.role, 0) + byte_count(spec)
    attention = [
        SiteReport(
            "attention", site.path, site.line, f"{site.heads} heads x {site.head_width}", status(site, plan, rewritten)
        )
        for site in plan.sites
    ]
    mlps = [
        SiteReport(
            "MLP",
            site.path,
            site.line,
            f"{site.width} -> {site.hidden}, {site.activation_name}",
            mlp_status(site, plan),
        )
        for site in plan.mlps
    ]
    return StepReport(
        plan.dense.step,
        plan.samples,
        plan.axes.lengths,
        plan.visible is not None,
        sum(node.op == "call_function" for node in plan.graph.nodes),
        (*attention, *mlps),
        full,
        cache_bytes,
        step_cost(plan.graph, plan.axes, plan.region),
    )


def byte_count(spec: CacheSpec) -> int:
    return math.prod(spec.shape) * spec.dtype.itemsize


def status(site: AttentionSite, plan: Plan, rewritten: Split) -> str:
    """What an attention site reads, or why it is not computed for active tokens only."""
    if site.node in plan.region.full:
        return "runs on all tokens: its queries are not rows of the token axis"
    if site.node not in plan.region.rows:
        return outside(site.node, plan)
    cached = {spec.value for spec in rewritten.caches if spec.role == "attention"}
    if site.k in cached and site.v in cached:
        return "keys and values cached"
    if site.k in plan.region.inside:
        return "keys and values cached before they are reshaped"
    return "keys and values from outside the region, read whole"


def mlp_status(site: MlpSite, plan: Plan) -> str:
    if site.down in plan.region.full:
        return "runs on all tokens: an operator before it mixes them"
    return "active tokens only" if site.down in plan.region.rows else outside(site.down, plan)


def outside(node: fx.Node, plan: Plan) -> str:
    where = "before" if plan.region.is_before(node) else "after"
    return f"{where} the region: its rows are not rows of the token axis"


def session_report(session: Session) -> SessionReport:
    by_name: dict[str, list[Any]] = {}
    for record in session.records:
        row = by_name.setdefault(record.name, [record.name, 0, 0, 0, 0.0, 0.0])
        for place, amount in enumerate((1, record.rows, record.original_rows, record.flops, record.original_flops), 1):
            row[place] += amount
    return SessionReport(tuple(tuple(row) for row in by_name.values()))


def graph_rows(graph: fx.Graph) -> Iterator[tuple[str, str, str, str]]:
    for node in graph.nodes:
        if node.op == "call_function":
            reads = ", ".join(operand.name for operand in node.all_input_nodes)
            yield node.name, operator_name(node), reads, module_path(node)


def as_text(renderable: RenderableType) -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def graph_table(name: str, rewritten: Split) -> RenderableType:
    """Every operator of a rewritten step: which part it is in and what it reads."""
    table = Table("part", "value", "operator", "reads", "module", title=f"{name}, rewritten")
    for part in ("prologue", "incremental", "epilogue"):
        for row in graph_rows(getattr(rewritten, part).module.graph):
            table.add_row(part, *row)
    return table
