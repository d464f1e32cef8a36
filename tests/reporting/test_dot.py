"""A rewritten step as text for Graphviz."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import marche_fx
from marche_fx.passes.graph.source import module_path
from marche_fx.reporting.dot import VIEWS
from marche_fx.reporting.graphs import PARTS, computed
from marche_fx.reporting.report import Report
from tests.networks import small_mar
from tests.reporting.hostile import hostile

NAME = r'"((?:[^"\\\n]|\\.)*)"'
VALUE = re.compile(rf" +{NAME} \[label={NAME}, fillcolor=(\w+)\];")
EDGE = re.compile(rf"  {NAME} -> {NAME}( \[style=dashed\])?;")
BOX = re.compile(rf" +subgraph {NAME} {{")


def drawn(report: Report, path: Path) -> tuple[dict[str, tuple[str, str]], list[tuple[str, str]]]:
    """By value the box that it is in and its colour; edges."""
    report.save(path)
    boxes: list[str] = []
    values: dict[str, tuple[str, str]] = {}
    edges = []
    for line in path.read_text().splitlines():
        if own := VALUE.fullmatch(line):
            values[own[1]] = boxes[-1], own[3]
        elif own := EDGE.fullmatch(line):
            edges.append((own[1], own[2]))
        elif own := BOX.fullmatch(line):
            boxes.append(own[1])
        elif line.strip() == "}" and boxes:
            boxes.pop()
        else:
            # Nothing else but these.
            assert re.match(r'digraph "|  node \[| +label="|}$|$', line), line
    assert not boxes
    return values, edges


def encoder() -> Report:
    mask = torch.tensor([[1.0, 0, 0, 0, 1, 1, 0, 0, 0]] * 2)
    x = torch.randn(2, 9, 4)
    return marche_fx.explain(small_mar().eval(), x, mask, torch.randn(2, 16), step="forward_mae_encoder")


def test_every_operator_that_computes_is_drawn_in_the_box_of_its_module(tmp_path: Path) -> None:
    report = encoder()
    values, edges = drawn(report, tmp_path / "step.dot")
    (graph,) = report.graphs
    for part in PARTS:
        for node in computed(getattr(graph.split, part)):
            is_drawn = node.target not in VIEWS or len(node.all_input_nodes) > 1
            assert (f"{part}.{node.name}" in values) == is_drawn
            if is_drawn and module_path(node):
                assert values[f"{part}.{node.name}"][0] == f"cluster_{part}.{module_path(node)}"
    assert {own for edge in edges for own in edge} <= values.keys()
    assert {"lightblue", "palegreen", "gold", "khaki", "white"} <= {colour for _, colour in values.values()}
    parts = {(source.split(".")[0], target.split(".")[0]) for source, target in edges}
    assert {("prologue", "incremental"), ("incremental", "epilogue")} <= parts
    assert not any("weight" in own for own in values)


def test_what_reads_a_view_is_drawn_to_read_what_the_view_is_of(tmp_path: Path) -> None:
    report = encoder()
    _, edges = drawn(report, tmp_path / "step.dot")
    found = set(edges)
    (graph,) = report.graphs
    folded = 0
    for part in PARTS:
        for node in computed(getattr(graph.split, part)):
            if node.target in VIEWS and len(node.all_input_nodes) == 1:
                continue
            for operand in node.all_input_nodes:
                steps = 0
                while operand.op == "call_function" and operand.target in VIEWS and len(operand.all_input_nodes) == 1:
                    (operand,), steps = operand.all_input_nodes, steps + 1
                if operand.op == "call_function":
                    assert (f"{part}.{operand.name}", f"{part}.{node.name}") in found
                    folded += steps
    assert folded > 10


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz: apt-get install graphviz")
def test_graphviz_reads_it_whatever_names_hold(tmp_path: Path) -> None:
    marche_fx.explain(hostile(), torch.randn(2, 30, 16)).save(tmp_path / "step.dot")
    subprocess.run(["dot", "-Tsvg", "step.dot", "-o", "step.svg"], cwd=tmp_path, check=True)
    assert "[cls]" in (tmp_path / "step.svg").read_text()
