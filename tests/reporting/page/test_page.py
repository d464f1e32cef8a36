"""The page as a file: whole, by itself, and with everything that the report tells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

import marche_fx
from marche_fx.reporting.head_report import Branch, HeadPart, HeadReport, SlowValue
from marche_fx.reporting.page.html import VOID
from marche_fx.reporting.report import Report
from tests.reporting.hostile import NAMES
from tests.reporting.page.reports import bounded, hostile_report
from tests.reporting.test_step_choices import decoded_mar
from tests.reporting.used import used

REPORTS: dict[str, Callable[[], Report]] = {
    "a session": lambda: marche_fx.report(used()),
    "two step methods": lambda: marche_fx.report(decoded_mar()),
    "streams": bounded,
    "a plan": hostile_report,
}


class Page(HTMLParser):
    """A page as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attrs)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name, "elements end in the order in which they began"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for own, attrs in self.elements if own == name]

    def text(self, *names: str) -> list[str]:
        return [data for name, data in self.texts if name in names]


@cache
def report_of(name: str) -> Report:
    return REPORTS[name]()


@cache
def page_of(name: str) -> Page:
    return Page(report_of(name).html())


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_is_whole_and_loads_nothing(name: str) -> None:
    page = page_of(name)
    assert not page.open
    assert not [attrs for _, attrs in page.elements if {"src", "href", "srcset", "action"} & attrs.keys()]
    assert not [attrs for _, attrs in page.elements if any(own.startswith("on") for own in attrs)]
    (policy,) = [own["content"] for own in page.all("meta") if "http-equiv" in own]
    assert str(policy).startswith("default-src 'none';")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", report_of(name).html())
    assert "@import" not in report_of(name).html()


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_can_be_read_aloud(name: str) -> None:
    page = page_of(name)
    ids = [own["id"] for _, own in page.elements if "id" in own]
    assert len(ids) == len(set(ids))
    assert {own["for"] for own in page.all("label") if "for" in own} <= set(ids)
    levels = [int(own[1]) for own, _ in page.elements if re.fullmatch("h[1-6]", own)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(own["scope"] in ("col", "row") for own in page.all("th"))
    assert [own.get("lang") for own in page.all("html")] == ["en"]


@pytest.mark.parametrize("name", REPORTS)
def test_every_operator_stands_in_its_module(name: str) -> None:
    report, page = report_of(name), page_of(name)
    operators = [own for graph in report.graphs for own in graph.operators()]
    rows = [own["data-state"] for own in page.all("tr") if "data-state" in own]
    assert len(rows) == len(operators) == sum(step.nodes for step in report.steps)
    for state in ("active", "read", "full", "before", "after"):
        expected = sum(own.state == state for own in operators)
        assert sum(str(own).split()[0] == state for own in rows) == expected
    names = page.text("th")
    assert {own.operator for own in operators} <= set(names)
    boxes = [own["data-path"] for own in page.all("details")]
    paths = {"", *(own.module.rsplit(".", up)[0] for own in operators for up in range(own.module.count(".") + 1))}
    small = {path for path in paths if is_small(path, report)}
    assert set(boxes) == paths - small
    assert {path.rsplit(".", 1)[-1] for path in small} <= set(page.text("td"))
    told = " ".join(page.text("td", "span"))
    assert all(own.line in told and (not own.reason or own.reason in told) for own in operators)


def is_small(path: str, report: Report) -> bool:
    """Whether a module has no children and few operators in every step, so that it is no box of its own."""
    counts = [Counter(own.module for own in graph.operators()) for graph in report.graphs]
    has_children = any(own.startswith(f"{path}.") for count in counts for own in count)
    return bool(path) and not has_children and all(count[path] <= 3 for count in counts)


def test_names_are_shown_as_they_are_and_nothing_of_them_is_an_element() -> None:
    page = page_of("a plan")
    assert len(page.all("script")) == 1, "the page's own"
    assert not page.all("img")
    assert not page.all("a")
    shown = page.text("span")
    assert all(name in shown for name in NAMES)


def test_a_page_tells_every_step_and_all_warnings() -> None:
    report, page = report_of("streams"), page_of("streams")
    assert report.session is not None
    headings = page.text("th")
    assert {"stream", "stale on purpose", "what moved", "read at"} <= set(headings)
    steps = re.findall(r'<tr><th scope="row">(\d+)</th><td>forward</td>', report.html())
    assert [int(own) for own in steps] == [own.decoding_step for own in report.session.choices]
    assert report.session.verdict in page.text("p")
    assert "reports.py:" in " ".join(page.text("td"))
    warned = Page(Report("M", (), warnings=("one <b>", "two")).html())
    assert warned.text("li") == ["one <b>", "two"]


def test_a_denoiser_is_told_with_its_slow_values_and_branches() -> None:
    parts = (HeadPart("slow", 12, 4e6, 0.59),)
    values = (SlowValue("aten.linear at net.<b>", ("t", "c"), 2e6),)
    branches = (Branch("aten.add at net.blocks.0", "product", 1e6),)
    roles = {"x": "the noisy value", "t": "the time"}
    counts = (3, 2, 200, 0.41, "FcF", 20)
    head = HeadReport("diffloss.net", "HeadReuse()", roles, parts, "halves of <x>", values, branches, ("no",), *counts)
    page = Page(Report("M", (), heads=(head,)).html())
    assert "Denoiser: diffloss.net" in page.text("h2")
    assert {"time and condition", "aten.linear at net.<b>", "aten.add at net.blocks.0"} <= set(page.text("th"))
    assert {"12", "59.0%", "t, c", "product"} <= set(page.text("td"))
    told = " ".join(page.text("p"))
    for own in ("x: the noisy value; t: the time", "halves of <x>", "Runs as it is: no", "200 calls in 2 denoisings"):
        assert own in told
    waiting = HeadReport("net", "exact", {}, (), "", (), (), (), 0, 0, 0, 0.0, "", 0)
    assert "Not captured yet" in Report("M", (), heads=(waiting,)).html()


def test_a_notebook_shows_the_page_in_a_frame_of_its_own() -> None:
    report = report_of("a session")
    ((name, attrs),) = Page(report._repr_html_()).elements
    assert name == "iframe"
    assert attrs["srcdoc"] == report.html()
    assert attrs["sandbox"] == "allow-scripts"


def test_a_saved_page_is_the_page(tmp_path: Path) -> None:
    report_of("a plan").save(tmp_path / "step.html")
    assert (tmp_path / "step.html").read_text(encoding="utf-8") == report_of("a plan").html()
