"""The report as values, as text and as files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import marche_fx
from marche_fx import ArgumentError
from marche_fx.passes.graph.source import module_path
from marche_fx.reporting.graphs import PARTS, computed
from marche_fx.reporting.tables import add_row, as_text
from tests.networks import Transformer
from tests.reporting.hostile import NAMES, hostile
from tests.reporting.used import X, used


def test_a_report_is_plain_values() -> None:
    found = marche_fx.report(used()).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert sorted(found) == list(found) == ["cuda_graphs", "heads", "model", "notes", "session", "steps", "warnings"]
    (step,) = found["steps"]
    assert sorted(step) == list(step)
    assert {"active", "cache_bytes", "fixed_flops", "in_full", "saving", "sites", "streams", "tokens"} <= step.keys()
    assert (step["streams"], step["active"], step["tokens"]) == ([30], [3], 30)
    assert step["saving"]["1"] == pytest.approx(1)
    assert step["flops"] / step["active_flops"] == pytest.approx(step["saving"]["0.1"])
    site = step["sites"][0]
    assert sorted(site) == list(site)
    assert (site["kind"], site["path"], site["claimed"], site["rows"]) == (
        "attention",
        "blocks.0.attention",
        True,
        [60],
    )
    (row,) = found["session"]["steps"]
    assert (row["step"], row["calls"], row["rows"]) == ("forward", 3, 92)
    unused = marche_fx.report(marche_fx.transform(Transformer(30, 16, 2).eval())).to_dict()
    assert (unused["session"], unused["steps"], len(unused["notes"])) == (None, [], 1)


def test_a_saved_text_is_cut_nowhere(tmp_path: Path) -> None:
    report = marche_fx.report(used())
    report.save(tmp_path / "step.txt")
    text = (tmp_path / "step.txt").read_text()
    assert "…" not in text
    assert str(report) in text
    assert report.session is not None
    assert report.session.text(steps=None) in text
    (graph,) = report.graphs
    nodes = [node for part in PARTS for node in computed(getattr(graph.split, part))]
    rows = [line for line in text.partition("forward, rewritten")[2].splitlines() if line.startswith("│")]
    assert [row.split()[3] for row in rows] == [node.name for node in nodes]
    assert all(row.split("│")[5].strip() == module_path(node) for row, node in zip(rows, nodes, strict=True))


def test_names_that_are_markup_are_printed_as_they_are(tmp_path: Path) -> None:
    report = marche_fx.explain(hostile(), X)
    printed = io.StringIO()
    Console(file=printed, width=1000, force_terminal=True).print(report)
    assert all(f"blocks.{name}.mlp.fc2" in printed.getvalue() for name in NAMES)
    assert "\x1b]8;" not in printed.getvalue(), "no link"
    report.save(tmp_path / "step.txt")
    text = (tmp_path / "step.txt").read_text()
    assert all(f"blocks.{name}.mlp.fc2" in text for name in NAMES)


def test_what_a_terminal_would_obey_is_written_out() -> None:
    table = Table("name")
    add_row(table, "\x1b[31mred")
    assert "\\x1b[31mred" in as_text(table)


def test_a_saved_json_is_the_report(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    report = marche_fx.report(used())
    report.save(path)
    found = json.loads(path.read_text())
    (graph,) = found.pop("graphs")
    assert found == report.to_dict()
    assert [own["name"] for own in graph["rewritten"]["epilogue"]][-1] == "output"
    names = {own["name"] for own in graph["operators"]}
    assert len(graph["operators"]) == len(names) == report.steps[0].nodes
    assert {own["value"] for own in graph["caches"]} == {own["name"] for own in graph["operators"] if own["cache"]}
    assert graph["active"] == [3]


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"\.html, \.txt, \.json or \.dot"):
        marche_fx.report(used()).save(tmp_path / "step.pdf")
