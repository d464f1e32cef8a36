"""What a report tells of steps that ran as graphs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

import marche_fx
from marche_fx import RowSignal, SelectiveRefresh
from marche_fx.refresh import History, Refresh
from tests.runtime.graphs.networks import graphed
from tests.sessions import inputs, transformer


class HostSignal(SelectiveRefresh):
    """Measures what no graph can hold."""

    signals = (RowSignal(lambda now, before: now.norm(dim=-1) * float(now[0, 0, 0]), "blocks.1.attention", "k"),)

    def choose(self, history: History) -> Refresh:
        return Refresh(5, history.age)


@torch.no_grad()
def decoded(optimized: torch.nn.Module) -> list[Tensor]:
    with marche_fx.decoding(optimized):
        return [optimized(x)[:, 5:18].clone() for x in inputs(8)]


def test_a_report_counts_graphs_replays_and_padding(tmp_path: Path) -> None:
    optimized = graphed(transformer(2), refresh=SelectiveRefresh(0.1, warmup=1))
    for _ in range(2):
        decoded(optimized)
    found = marche_fx.report(optimized)
    assert found.cuda_graphs is not None
    ((name, counts),) = found.cuda_graphs.steps
    assert name == "forward"
    assert (counts.steps, counts.first, counts.recorded, counts.replays) == (16, 2, 1, 13)
    assert counts.waits == 16
    assert found.cuda_graphs.size > 0
    assert "2 CUDA graphs recorded" in str(found)
    assert "forward: 14 of 16 steps ran as CUDA graphs" in found.html()
    found.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())["cuda_graphs"]
    assert saved["steps"][0]["replays"] == 13


def test_a_report_names_the_operators_that_graphs_are_cut_at() -> None:
    plain = marche_fx.transform(transformer(2), refresh=HostSignal(0.1), compile=False)
    optimized = graphed(transformer(2), refresh=HostSignal(0.1))
    for _ in range(2):
        for own, known in zip(decoded(optimized), decoded(plain), strict=True):
            torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)
    found = marche_fx.report(optimized)
    assert found.cuda_graphs is not None
    ((_, counts),) = found.cuda_graphs.steps
    assert counts.replays > 8
    (place,) = counts.apart
    assert place.startswith("row_signal")
    assert f"forward: graphs are cut at {place}, which cannot be recorded: ForbiddenError" in found.html()


def test_a_report_without_graphs_tells_nothing_of_them() -> None:
    optimized = marche_fx.transform(transformer(2), compile=False)
    decoded(optimized)
    found = marche_fx.report(optimized)
    assert found.cuda_graphs is None
    assert "CUDA" not in str(found)
