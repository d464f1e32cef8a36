"""Graphs and numbers in Model Explorer's own page; skipped where it or a Chromium is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

import marche_fx
from marche_fx.reporting.report import Report
from tests.browser import NAMES as BROWSERS
from tests.browser import Page, browser_path, opened_browser
from tests.explorer import COMMAND, address_of, opened_explorer
from tests.reporting.hostile import hostile
from tests.reporting.test_step_choices import decoded_mar

pytestmark = [
    pytest.mark.skipif(
        browser_path() is None,
        reason=f"needs a browser on the path, one of {', '.join(BROWSERS)}: apt-get install chromium",
    ),
    pytest.mark.skipif(
        shutil.which(COMMAND) is None,
        reason=f"needs {COMMAND} on the path: pipx install ai-edge-model-explorer",
    ),
]

PANEL = """
(() => {
  const told = {};
  for (const row of document.querySelectorAll("info-panel table.info-attrs tr")) {
    const value = row.querySelector(".value .one-line-text").textContent.trim();
    // A number that other nodes have.
    if (value !== "-") told[row.querySelector(".key").textContent.trim()] = value;
  }
  const inputs = [...document.querySelectorAll("info-panel .inputs .locator[data-id]")].map((own) => own.dataset.id);
  return {told, inputs, count: document.querySelector("graph-selector .node-count-label")?.textContent.trim()};
})()
"""
"""What stands beside the selected node, the ids of its inputs, and how many nodes the graph has."""


class Shown:
    """A report's folder in Model Explorer."""

    def __init__(self, page: Page, address: str, folder: Path) -> None:
        self.page, self.address = page, address
        self.files: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}
        self.graphs = {own["id"]: own["nodes"] for own in self.files["graphs"]["graphs"]}

    def numbers(self, graph: str, node: str) -> dict[str, float]:
        kinds = {name: own for name, own in self.files.items() if name != "graphs"}
        found = {name: own.get(graph, {}).get("results", {}).get(node) for name, own in kinds.items()}
        return {name: own["value"] for name, own in found.items() if own is not None}

    def panel(self, graph: str, node: str) -> Any:
        """What the page shows where this node is selected, all of its numbers included."""
        self.page.open(address_of(self.address, self.files["graphs"]["label"], graph, node))
        names = ["id", *self.numbers(graph, node)]
        self.page.wait(f"{json.dumps(names)}.every((name) => name in {PANEL.strip()}.told)")
        return self.page.run(PANEL)


def reports() -> dict[str, Report]:
    return {"mar": marche_fx.report(decoded_mar()), "names": marche_fx.explain(hostile(), torch.randn(2, 30, 16))}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Shown]]:
    with ExitStack() as stack:
        page = stack.enter_context(opened_browser())
        found = {}
        for name, report in reports().items():
            folder = tmp_path_factory.mktemp(name)
            report.save_model_explorer(folder)
            numbers = sorted(path.stem for path in folder.iterdir() if path.stem != "graphs")
            found[name] = Shown(page, stack.enter_context(opened_explorer(folder, numbers)), folder)
        yield found


@pytest.mark.parametrize(
    ("name", "graph", "kinds"),
    [
        ("mar", "forward_mae_encoder, as captured", {"flops", "active_flops", "rows"}),
        ("mar", "forward_mae_decoder, as captured", {"rows", "age"}),
        ("mar", "forward_mae_decoder, rewritten", set()),
        ("names", "forward, as captured", {"flops", "active_flops"}),
        ("names", "forward, rewritten", set()),
    ],
)
def test_an_operator_is_shown_as_it_was_written(
    name: str, graph: str, kinds: set[str], shown: dict[str, Shown]
) -> None:
    own = shown[name]
    nodes = own.graphs[graph]
    candidates = [each for each in nodes if own.numbers(graph, each["id"]).keys() == kinds]
    # That of which most is known, as deep as any.
    node = max(candidates, key=lambda each: (len(each["attrs"]), each["namespace"].count("/")))
    expected = own.numbers(graph, node["id"])
    found = own.panel(graph, node["id"])
    told = found["told"]
    assert {kind: float(told.pop(kind)) for kind in expected} == pytest.approx(expected, rel=1e-3)
    attributes = {each["key"]: each["value"] for each in node["attrs"]}
    assert attributes
    assert told == {"op name": node["label"], "id": node["id"], "namespace": node["namespace"], **attributes}
    assert found["inputs"] == [edge["sourceNodeId"] for edge in node["incomingEdges"]]
    assert found["count"] == f"{len(nodes)} nodes"
    # It asks for a font of a server elsewhere, which is not there.
    entries = [json.loads(each).get("entry", {"level": "error"}) for each in own.page.complaints()]
    assert not [each for each in entries if each["level"] == "error" and each.get("source") != "network"]
    assert own.page.run("document.title") == "Model Explorer"
