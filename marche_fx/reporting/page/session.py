"""A session on the page: what it comes to, every step, which tokens were computed and why, and what moved and read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...runtime.records import REASONS
from ..causes import changes_and_reads
from ..session_report import SessionReport
from ..step_choices import spread
from ..tables import memory, short
from .frames import panels_of
from .html import Html, joined, script_data, table, tag

FIGURE_LEGEND = (
    ("cached", "kept from an earlier step, or dropped"),
    ("changed", "a value that it is computed of moved"),
    ("queried", "the loop reads its result"),
    ("refreshed", "the policy chose it"),
    ("stale", "read, and left as it was on purpose"),
)
"""What the colours of the figure mean; the first four are `REASONS`."""


def summary_facts(session: SessionReport) -> Iterable[tuple[str, str]]:
    """What a session comes to."""
    rows, original = sum(row[2] for row in session.rows), sum(row[3] for row in session.rows)
    yield "rows computed", f"{rows:,} of {original:,} ({session.rows_ratio:.1%})"
    flops, before = sum(row[4] for row in session.rows), sum(row[5] for row in session.rows)
    fewer = f", {1 / session.flops_ratio:.1f}x fewer" if session.flops_ratio else ""
    yield "FLOPs", f"{short(flops)}FLOPs of {short(before)}FLOPs{fewer}"
    timed = [own.seconds for own in session.causes if own.seconds]
    if timed:
        measured = session.measured
        faster = "" if measured is None else f"; a call {measured:.1f}x as fast as one that computed everything"
        yield "measured", f"{sum(timed):.3g} s in {len(timed)} calls after the first ones{faster}"
    yield "caches", memory(session.cache_bytes)
    yield "streams of calls", str(session.streams)


def session_html(session: SessionReport) -> Html:
    heading = "The session so far" if session.is_open else "The last session"
    return tag(
        "section",
        tag("h2", heading),
        totals(session),
        figure(session) if session.choices else "",
        tag("h3", "Every step"),
        steps_table(session),
        tag("h3", "What changed tokens, and what read rows"),
        table(
            "what changed tokens, and what read rows",
            ("what", "calls", "tokens of a call, rows of a sample", "oldest, steps"),
            changes_and_reads(session.causes),
            numbers=(1, 2, 3),
        ),
        class_="session",
    )


def totals(session: SessionReport) -> Html:
    rows = (
        [name, str(calls), f"{rows:,}", f"{original:,}", f"{flops / max(of, 1):.3f}"]
        for name, calls, rows, original, flops, of in session.rows
    )
    headings = ("step", "calls", "rows computed", "rows of the original", "FLOPs ratio")
    return table("rows and FLOPs of a session", headings, rows, numbers=(1, 2, 3, 4))


def steps_table(session: SessionReport) -> Html:
    checked = any(own.drift is not None for own in session.choices)
    many = session.streams > 1
    rows: list[list[Any]] = []
    for own in session.choices:
        spared = 0 if own.spared is None else int((own.spared & (own.reasons == 0)).sum())
        rows.append(
            [
                str(own.decoding_step),
                own.method,
                *([str(own.stream)] if many else []),
                f"{own.active} of {own.visible}",
                *(spread(own.count(reason)) for reason in REASONS[1:]),
                str(spared) if spared else "",
                f"{own.flops_ratio:.3f}",
                *(["" if own.drift is None else f"{own.drift:.3f}"] if checked else []),
                "; ".join(name for name, tokens in own.moved.items() if tokens.any()),
                ", ".join(own.lines),
            ]
        )
    headings = [
        "step",
        "method",
        *(["stream"] if many else []),
        "active",
        *REASONS[1:],
        "stale on purpose",
        "FLOPs ratio",
        *(["drift found"] if checked else []),
        "what moved",
        "read at",
    ]
    return table("every step of the session", headings, rows, numbers=range(2, len(headings) - 2))


def figure(session: SessionReport) -> Html:
    """The tokens of each step; the script of the page draws them out of the data that stand beside."""
    panels = panels_of(session.choices)
    samples = max(own["samples"] for own in panels)
    steps = sorted({frame["step"] for own in panels for frame in own["frames"]})
    controls = tag(
        "div",
        tag(
            "div",
            tag("label", "step ", tag("output", str(steps[0]), id="step-shown"), for_="step"),
            tag("input", id="step", type="range", min=0, max=len(steps) - 1, value=0),
        ),
        tag(
            "div",
            tag("label", "sample", for_="sample"),
            tag("select", [tag("option", str(own), value=own) for own in range(samples)], id="sample"),
        ),
        tag(
            "div",
            tag("label", "tokens in a line", for_="columns"),
            tag("input", id="columns", type="number", min=1, placeholder="as it comes"),
        ),
        tag(
            "div",
            tag("label", "token", for_="token"),
            tag("input", id="token", type="number", min=0, value=0),
        ),
        class_="controls",
    )
    keys = [[tag("span", "", class_=f"key {name}"), f" {name}: {told}. "] for name, told in FIGURE_LEGEND]
    return joined(
        [
            tag("h3", "Which tokens were computed, and why"),
            tag("p", [part for key in keys for part in key]),
            tag("noscript", tag("p", "The picture needs JavaScript; the table below says the same in numbers.")),
            controls,
            tag("div", id="panels", class_="panels"),
            tag("div", id="why", role="status", aria_live="polite"),
            tag("script", script_data({"panels": panels, "steps": steps}), type="application/json", id="choices"),
        ]
    )
