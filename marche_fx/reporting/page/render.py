"""A report as one file of HTML that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

import torch

from ...version import __version__
from ..head_report import HeadReport
from ..operators import StepGraph
from ..session_report import SessionReport
from ..step_report import StepReport
from .captured import step_html
from .denoiser import head_html
from .html import Html, facts, joined, tag
from .session import session_html, summary_facts


def page(
    model: str,
    steps: Sequence[StepReport],
    graphs: Sequence[StepGraph],
    session: SessionReport | None,
    heads: Sequence[HeadReport],
    notes: Sequence[str],
    warnings: Sequence[str],
) -> str:
    """The page: its template with styles, script and content in it."""
    content = joined(
        [
            header(model, steps, session, notes, warnings),
            "" if session is None else session_html(session),
            search(sum(len(own.nodes) for own in graphs)) if graphs else "",
            [step_html(model, step, graph) for step, graph in zip(steps, graphs, strict=True)],
            [head_html(own) for own in heads],
            tag("footer", tag("p", f"marche_fx {__version__}, torch {torch.__version__}")),
        ]
    )
    script = own_file("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": joined(f"{model}: what marche_fx does with it"),
        "style": own_file("style.css"),
        # Nothing but this one script runs, whatever a name of the model holds.
        "script_digest": f"'sha256-{digest}'",
        "content": content,
        "script": script,
    }
    # In one pass: what is put in is not looked at again.
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], own_file("template.html"))


def framed(html: str) -> str:
    """A page for a notebook, apart from the notebook's own styles and scripts."""
    return str(
        tag(
            "iframe",
            srcdoc=html,
            sandbox="allow-scripts",
            title="marche_fx report",
            style="width: 100%; height: 40rem; border: 0",
        )
    )


def own_file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def header(
    model: str,
    steps: Sequence[StepReport],
    session: SessionReport | None,
    notes: Sequence[str],
    warnings: Sequence[str],
) -> Html:
    """What it all comes to, and what the user was warned of, in full."""
    told = [tag("li", own) for own in warnings]
    return tag(
        "header",
        tag("h1", model),
        tag("p", session.verdict, class_="verdict") if session is not None else "",
        facts([*(summary_facts(session) if session is not None else []), *predictions(steps)]),
        tag("h2", "Warnings") if told else "",
        tag("ul", told, class_="warnings") if told else "",
        [tag("p", own) for own in notes],
    )


def predictions(steps: Sequence[StepReport]) -> Iterable[tuple[str, str]]:
    """What each step gains, before there was a session."""
    for own in steps:
        saving = f"{own.saving(own.fraction):.1f}x fewer FLOPs at {own.fraction:.0%} of the tokens"
        if own.speedups:
            saving += f", predicted {own.speedups[own.fraction]:.1f}x as fast as the original run eagerly"
        yield f"predicted for {own.name}", saving


def search(total: int) -> Html:
    """What finds operators in the modules below."""
    boxes = [
        tag("label", tag("input", type="checkbox", class_="filter", value=state, checked=True), f" {name}")
        for state, name in (
            ("active", "active"),
            ("read", "read"),
            ("full", "in full"),
            ("before", "before"),
            ("after", "after"),
        )
    ]
    return tag(
        "form",
        tag("label", "search operators, modules, lines", for_="search"),
        tag("input", id="search", type="search", autocomplete="off", spellcheck="false"),
        tag("fieldset", tag("legend", "runs on"), boxes),
        tag("label", tag("input", type="checkbox", id="only-cached"), " only what is cached"),
        tag("p", f"{total:,} operators", id="found", role="status"),
        class_="search",
        role="search",
    )
