"""Graphs and numbers for Model Explorer, against the graphs and the session that they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import marche_fx
from marche_fx import ArgumentError, Monitor, SelectiveRefresh
from marche_fx.passes.graph.source import module_path
from marche_fx.reporting.model_explorer import mean_age, path_of
from marche_fx.reporting.report import Report
from tests.networks import Transformer
from tests.reporting.hostile import hostile
from tests.reporting.page.reports import bounded
from tests.reporting.test_step_choices import decoded_mar, session_of
from tests.reporting.used import used


def saved(report: Report, folder: Path) -> dict[str, Any]:
    report.save_model_explorer(folder)
    return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["one step", "two step methods", "hostile names"])
def test_graphs_are_whole_and_nested_by_module(kind: str, tmp_path: Path) -> None:
    if kind == "hostile names":
        report = marche_fx.explain(hostile(), torch.randn(2, 30, 16))
    else:
        report = marche_fx.report(used() if kind == "one step" else decoded_mar())
    found = saved(report, tmp_path)["graphs"]
    assert found["label"] == report.model
    assert [own["id"] for own in found["graphs"]] == [
        f"{own.name}, {what}" for own in report.graphs for what in ("as captured", "rewritten")
    ]
    for graph in found["graphs"]:
        ids = [own["id"] for own in graph["nodes"]]
        assert len(ids) == len(set(ids))
        sources = {edge["sourceNodeId"] for own in graph["nodes"] for edge in own["incomingEdges"]}
        assert sources <= set(ids)
    for number, own in enumerate(report.graphs):
        captured, rewritten = (
            {node["id"]: node for node in found["graphs"][2 * number + at]["nodes"]} for at in (0, 1)
        )
        for node in own.nodes:
            assert captured[node.name]["namespace"] == path_of(module_path(node))
            assert [edge["sourceNodeId"] for edge in captured[node.name]["incomingEdges"]] == [
                operand.name for operand in node.all_input_nodes
            ]
            if node in own.split.copies and node.name in rewritten:
                # The same operator has the same id in both, and stands in the same module.
                assert rewritten[node.name]["namespace"].partition("/")[2] == path_of(module_path(node))


def test_rewritten_parts_read_one_another_and_caches(tmp_path: Path) -> None:
    report = marche_fx.report(decoded_mar())
    found = saved(report, tmp_path)["graphs"]["graphs"]
    (graph,) = [own for own in found if own["id"] == "forward_mae_encoder, rewritten"]
    parts = {own["id"]: own["namespace"].split("/")[0] for own in graph["nodes"]}
    crossing = {
        (parts[edge["sourceNodeId"]], parts[own["id"]])
        for own in graph["nodes"]
        for edge in own["incomingEdges"]
        if parts[edge["sourceNodeId"]] != parts[own["id"]]
    }
    assert {("prologue", "incremental"), ("incremental", "epilogue")} <= crossing
    assert not {("epilogue", "incremental"), ("incremental", "prologue")} & crossing
    colours = {own["label"]: own.get("style", {}).get("backgroundColor") for own in graph["nodes"]}
    assert (colours["update_cache"], colours["gather_active"]) == ("gold", "khaki")


def test_numbers_are_those_of_the_report_and_the_session(tmp_path: Path) -> None:
    report = marche_fx.report(used())
    found = saved(report, tmp_path)
    assert found.keys() == {"graphs", "flops", "active_flops", "rows", "age"}

    def results(name: str) -> dict[str, float]:
        (data,) = found[name].values()
        return {node: own["value"] for node, own in data["results"].items()}

    (step,) = report.steps
    assert sum(results("flops").values()) == pytest.approx(step.flops)
    assert sum(results("active_flops").values()) == pytest.approx(step.active_flops)
    assert report.session is not None
    # 30 rows in the first step and 8 in each of two others, of two samples.
    assert results("rows")["layer_norm"] == 92 == report.session.rows[0][2]
    caches = {own.name for own in report.graphs[0].operators() if own.cache}
    assert results("age").keys() == caches


def test_rows_are_those_that_an_operator_computed_where_few_results_are_read(tmp_path: Path) -> None:
    report = bounded()
    assert report.session is not None
    (data,) = saved(report, tmp_path)["rows"].values()
    choices = report.session.choices
    by_state = {"full": 2 * 30 * len(choices)}
    by_state |= {"active": sum(2 * own.active for own in choices), "read": sum(2 * own.read for own in choices)}
    assert by_state["read"] < by_state["active"] < by_state["full"]
    for own in report.graphs[0].operators():
        if own.rows and own.state in by_state:
            assert data["results"][own.name]["value"] == by_state[own.state]


def test_the_age_of_rows_is_counted_stream_by_stream() -> None:
    choices = session_of(decoded_mar()).choices
    expected = []
    last: dict[tuple[str, int, int], int] = {}
    for own in [each for each in choices if each.method == "forward_mae_decoder"]:
        for sample, reasons in enumerate(own.reasons.tolist()):
            for token, reason in enumerate(reasons):
                key = own.method, sample, token
                last[key] = own.decoding_step if reason else last.get(key, own.decoding_step)
                expected.append(own.decoding_step - last[key])
    found = mean_age([own for own in choices if own.method == "forward_mae_decoder"])
    assert found == pytest.approx(sum(expected) / len(expected))


def test_what_a_monitor_found_is_a_number_of_results(tmp_path: Path) -> None:
    torch.manual_seed(0)
    optimized = marche_fx.transform(
        Transformer(25, 16, 2).eval(),
        refresh=SelectiveRefresh(0.0, warmup=1),
        compile=False,
        monitor=Monitor(every=2, rows=25, max_drift=10.0),
    )
    x = torch.randn(2, 25, 16)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for step in range(4):
            x[:, step] += torch.randn(16)
            optimized(x)[:, 24].sum()
    report = marche_fx.report(optimized)
    (data,) = saved(report, tmp_path)["drift"].values()
    assert report.session is not None
    drifts = [own.drift for own in report.session.choices if own.drift is not None]
    ((_, value),) = data["results"].items()
    assert value["value"] == pytest.approx(sum(drifts) / len(drifts))
    assert value["value"] > 0


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no folder"):
        marche_fx.report(used()).save_model_explorer(tmp_path / "none")
