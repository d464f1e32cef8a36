"""One captured step on the page: what it comes to, its modules, its sites, what runs on all tokens, its passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..operators import STATES, StepGraph
from ..step_report import TYPICAL, StepReport
from ..tables import joined as counts_in_words
from ..tables import memory, short
from .html import Html, facts, joined, table, tag
from .modules import LABELS, module_html, module_tree


def step_html(model: str, step: StepReport, graph: StepGraph) -> Html:
    operators = graph.operators()
    tree = module_tree(model, operators, step.sites, graph.module_types())
    return tag(
        "section",
        tag("h2", f"Step: {step.name}"),
        facts(step_facts(step)),
        [tag("p", own, class_="warning") for own in moving(step)],
        tag("h3", "The model, operator by operator"),
        tag("p", legend(step)),
        tag("div", module_html(tree, is_open=True), class_="tree"),
        tag("h3", "Attention and MLP sites"),
        sites_table(step),
        full_html(step),
        tag("h3", "Passes"),
        table(
            f"passes of {step.name}",
            ("pass", "found", "seconds"),
            ([own.name, own.found, f"{own.seconds:.2f}"] for own in step.passes),
            numbers=(2,),
        ),
        class_="step",
    )


def step_facts(step: StepReport) -> Iterable[tuple[str, str]]:
    drops = ", masked ones dropped" if step.drops_tokens else ""
    yield "tokens", f"{step.samples} samples of {counts_in_words(step.streams)}{drops}"
    yield "operators", f"{step.nodes:,}"
    claimed = sum(site.claimed for site in step.sites)
    yield "sites on active tokens only", f"{claimed} of {len(step.sites)}"
    yield "FLOPs", f"{short(step.flops)}FLOPs"
    yield f"at {step.fraction:.0%} active", f"{short(step.active_flops)}FLOPs, {step.saving(step.fraction):.1f}x fewer"
    yield "fewer FLOPs by the share of active tokens", savings(step)
    yield "what a loop reads decides", kinds_of_loops(step)
    if step.read_only_share:
        yield "of a token's FLOPs, skipped where nobody reads its result", f"{step.read_only_share:.0%}"
    fixed = (f"{flops / max(step.flops, 1):.1%} {part}" for part, flops in step.fixed_flops.items())
    yield "FLOPs that no choice of tokens saves", ", ".join(fixed) + " the region"
    yield "caches of a session", ", ".join(f"{role} {memory(size)}" for role, size in step.cache_bytes.items())
    for share, speedup in step.speedups.items():
        seconds = "" if step.original_seconds is None else f", {1e3 * step.original_seconds / speedup:.3g} ms"
        yield f"predicted at {share:.0%} active", f"{speedup:.1f}x the original run eagerly{seconds}"


def savings(step: StepReport) -> str:
    return ", ".join(f"{step.saving(share):.1f}x at {share:.0%}" for share in step.shares)


def kinds_of_loops(step: StepReport) -> str:
    return "; ".join(f"{step.saving(share):.1f}x where {name}" for name, share in TYPICAL.items())


def moving(step: StepReport) -> Iterable[str]:
    for name in step.moves_all:
        yield f"Every token is recomputed when {name}, moves; tolerance= says how far it may."
    for bare in step.without_rule:
        yield f"Outside the region: {bare.operator} at {bare.path or 'the model'} ({bare.line}) {bare.reason}."


def legend(step: StepReport) -> Html:
    """What the colours mean, and the letters of shapes."""
    chips = [[tag("span", LABELS[own], class_=f"chip {own}"), f" {told}. "] for own, told in STATES.items()]
    cached = [tag("span", "cached", class_="chip cached"), " its rows are kept for later steps. "]
    active = counts_in_words(step.active)
    letters = f"In shapes A stands for the active tokens, {active} of a sample here, R for those that are read."
    return joined([*(part for chip in chips for part in chip), *cached, letters])


def sites_table(step: StepReport) -> Html:
    rows: list[list[Any]] = []
    for site in step.sites:
        status = tag("span", site.status, class_="chip active" if site.claimed else "chip full")
        rows.append(
            [
                f"{site.kind}, {site.size}",
                site.path,
                site.line,
                status,
                counts_in_words(site.rows),
                counts_in_words(site.active_rows),
                short(site.flops),
                short(site.active_flops),
                memory(site.cache_bytes) if site.cache_bytes else "",
            ]
        )
    at = f"at {step.fraction:.0%}"
    headings = ("site", "module", "source", "what is done", "rows", f"rows {at}", "FLOPs", f"FLOPs {at}", "caches")
    return table(f"sites of {step.name}", headings, rows, numbers=range(4, 9))


def full_html(step: StepReport) -> Html:
    """What runs on all tokens inside the region, and why."""
    found = [*step.in_full, *step.behind]
    if not found:
        return tag("p", "Nothing inside the region runs on all tokens.")
    rows = (
        [
            own.operator,
            own.path,
            own.line,
            own.reason,
            f"{own.share:.1%}",
            f"{own.flops / max(step.active_flops, 1):.1%}",
            memory(own.cache_bytes) if own.cache_bytes else "",
        ]
        for own in found
    )
    headings = ("operator", "module", "source", "because it", "of FLOPs", f"at {step.fraction:.0%}", "caches")
    heading = tag("h3", "What runs on all tokens, and why")
    return joined([heading, table(f"on all tokens in {step.name}", headings, rows, numbers=(4, 5, 6))])
