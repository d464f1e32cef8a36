"""What was found in a model, what is done with it, what is left alone and why, and what a session computed."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from torch import nn

from ..api.optimization import optimization_of
from ..api.options import default_steps, method_names
from ..errors import ArgumentError
from ..passes.analysis.cost import Cost, step_cost
from ..passes.analysis.plan import Plan
from ..passes.analysis.row_outputs import can_wait, find_row_outputs
from ..passes.pipeline import make_plan, rewrite
from ..passes.rewrite.parts import Split
from ..passes.rules.flops import node_flops
from ..passes.trail import PassRun
from ..refresh.builtin import OBSERVED
from ..runtime.open_sessions import current_session
from ..runtime.program import input_names, value_name
from ..speed.prediction import Prediction, rates_for
from .graphs import graph_table, graphviz
from .session_report import SessionReport, session_report
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
from .tables import WIDTH, as_text, full_table, joined, memory, place, short, site_table

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
        passes: those that ran, in their order, with what each found and how long it took.
        moves_all: values that every token of a sample reads, so that all are recomputed when one moves.
        speedups: predicted, over the original run eagerly, by the share of active tokens; empty where not asked for.
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
    passes: tuple[PassRun, ...] = ()
    moves_all: tuple[str, ...] = ()
    speedups: dict[float, float] = field(default_factory=dict)

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
        return dataclasses.replace(self, speedups=found)

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
        if self.in_full or self.behind:
            yield full_table([*self.in_full, *self.behind], self.active_flops, self.fraction)
        for bare in self.without_rule:
            yield Text(f"outside the region: {place(bare.operator, bare.path, bare.line)} {bare.reason}", "yellow")
        if self.read_only_share:
            yield Text(
                f"{self.read_only_share:.0%} of a token's FLOPs are skipped in steps in which nobody reads its result"
            )
        parts = ", ".join(f"{role} {memory(size)}" for role, size in self.cache_bytes.items())
        yield Text(f"caches of a session: {parts}")
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
        if self.session is not None:
            yield Text(self.session.verdict, "bold")
        yield from self.steps
        if self.session is not None:
            yield self.session
        for note in self.notes:
            yield Text(note)

    def __str__(self) -> str:
        return as_text(self)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for `json`; keys are sorted."""
        return {
            "model": self.model,
            "notes": list(self.notes),
            "session": None if self.session is None else self.session.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
        }

    def save(self, path: str | Path) -> None:
        """Write the report to a file.

        ``.html`` and ``.txt`` hold what is printed and every rewritten graph, operator by operator; ``.json`` holds
        `to_dict`; ``.dot`` the graphs for Graphviz, coloured by part: ``dot -Tsvg step.dot > step.svg``.

        Raises:
            ArgumentError: the name has another ending.
        """
        path = Path(path)
        if path.suffix == ".json":
            path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        elif path.suffix == ".dot":
            path.write_text("\n".join(graphviz(*graph) for graph in self.graphs), encoding="utf-8")
        elif path.suffix in (".html", ".txt"):
            console = Console(record=True, width=WIDTH, file=io.StringIO())
            console.print(self)
            for graph in self.graphs:
                console.print(graph_table(*graph))
            text = console.export_html() if path.suffix == ".html" else console.export_text()
            path.write_text(text, encoding="utf-8")
        else:
            raise ArgumentError(f"a report is saved as .html, .txt, .json or .dot, got {path.name!r}")


def report(optimized: nn.Module, *, fraction: float = 0.1) -> Report:
    """What `transform` made of a model, so far: steps are captured at their first call.

    Args:
        fraction: the share of tokens to take as active where rows and FLOPs of a partial step are told.

    Raises:
        ArgumentError: the model was not made by `transform`, or ``fraction`` is not between 0 and 1.
    """
    check_fraction(fraction)
    optimization = optimization_of(optimized)
    # Also of children that the loop was found to call.
    parts = [optimization, *optimization.parts.values()]
    programs = [program for part in parts for step in part.steps.values() for program in step.programs]
    current = current_session(optimization)
    is_open = current is not None and bool(current.log.calls)
    session = current if is_open else optimization.last_session
    notes = [] if programs else ["No step has been called yet; it is captured at its first call."]
    outside = {step.name: step.calls_outside for part in parts for step in part.steps.values() if step.calls_outside}
    for name, count in outside.items():
        notes.append(
            f"{count} calls of {name} were made outside of a session, and computed every token. Decode inside "
            "`with marche_fx.decoding(model):`"
        )
    return Report(
        type(optimized).__name__,
        tuple(step_report(program.plan, program.split, fraction, program.passes) for program in programs),
        session_report(session, is_open=is_open) if session is not None and session.log.calls else None,
        tuple(notes),
        tuple((program.plan.dense.step, program.split) for program in programs),
    )


def explain(
    model: nn.Module,
    *args: Any,
    step: str | None = None,
    fraction: float = 0.1,
    speed: bool = False,
    **kwargs: Any,
) -> Report:
    """What `transform` would make of ``model.step(*args, **kwargs)``; changes nothing of it.

    The step is called once, on copies of the model's modules that share its weights, and then traced.

    Args:
        step: the method's name. When omitted, the step method that `transform` takes; of several the one that accepts
            these arguments.
        fraction: the share of tokens to take as active where rows and FLOPs of a partial step are told.
        speed: predict how much faster a compiled step is, from the rates of products and attention on this machine,
            which are measured for a few seconds the first time. What the loop does between steps is not counted.

    Raises:
        ArgumentError: ``fraction`` is not between 0 and 1, the model has no such method, or it has several step methods
            of which not one alone accepts these arguments.
        CaptureError, UnsupportedModelError: as a transformed model would at its first call.
    """
    check_fraction(fraction)
    name = step_for(model, step, args, kwargs)
    plan = make_plan(model, name, args, kwargs)
    # What other step methods return is read by a step method, as a whole, and nothing is observed there.
    is_last = name not in default_steps(model)[:-1]
    skip_unread = is_last and can_wait(plan, find_row_outputs(plan))
    rewritten = rewrite(plan, skip_unread=skip_unread, compile=False)
    names = input_names(model, plan)
    moves_all = tuple(value_name(plan, own.node, names) for own in rewritten.watched if own.token_dim is None)
    found = step_report(plan, rewritten.split, fraction, (*plan.passes, *rewritten.passes), moves_all)
    if speed:
        observed = OBSERVED if is_last else 0
        prediction = Prediction(plan, rates_for(plan), read_only=rewritten.split.read_only, observed=observed)
        found = found.with_speedups(prediction)
    return Report(type(model).__name__, (found,), graphs=((name, rewritten.split),))


def step_for(model: nn.Module, step: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The step method that these arguments are of."""
    names = method_names(model, step, default=default_steps(model), argument="step")
    if len(names) == 1:
        return names[0]
    fitting = [name for name in names if accepts(getattr(model, name), args, kwargs)]
    if len(fitting) != 1:
        signatures = "; ".join(f"{name}{inspect.signature(getattr(model, name))}" for name in names)
        raise ArgumentError(
            f"explain tells of one step method, and {type(model).__name__} has {len(names)}, of which "
            f"{'several accept' if fitting else 'none accepts'} these arguments: {signatures}. Name one, as in "
            f"explain(model, ..., step={names[0]!r})"
        )
    return fitting[0]


def accepts(method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call with these arguments has the right number and names of them."""
    try:
        inspect.signature(method).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def check_fraction(fraction: float) -> None:
    is_number = isinstance(fraction, (int, float)) and not isinstance(fraction, bool)
    if not is_number or not 0 <= fraction <= 1:
        raise ArgumentError(f"fraction must be a number from 0 to 1, the share of active tokens, got {fraction!r}")


def active_tokens(streams: Sequence[int], fraction: float) -> tuple[int, ...]:
    """Active tokens of each stream, one at least."""
    return tuple(max(1, round(fraction * tokens)) for tokens in streams)


def step_report(
    plan: Plan,
    rewritten: Split,
    fraction: float = 0.1,
    passes: tuple[PassRun, ...] = (),
    moves_all: tuple[str, ...] = (),
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
    for spec in rewritten.caches:
        cache_bytes[spec.role] = cache_bytes.get(spec.role, 0) + byte_count([spec])
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
        passes=passes,
        moves_all=moves_all,
    )


def plain(value: Any) -> Any:
    """Dataclasses as dicts with sorted keys, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {own.name: getattr(value, own.name) for own in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
