"""What the report says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import marche_fx
from marche_fx import ArgumentError, SelectiveRefresh, UnsupportedModelError
from tests.networks import Transformer, WithConvolution

X = torch.randn(2, 30, 16)


@cache
def used() -> nn.Module:
    torch.manual_seed(0)
    optimized = marche_fx.transform(
        Transformer(30, 16, 2).eval(), refresh=SelectiveRefresh(0.0, warmup=0), compile=False
    )
    with torch.no_grad(), marche_fx.decoding(optimized):
        for _ in range(3):
            optimized(X)[:, 2]
    return optimized


def test_every_site_is_listed_with_its_module_line_and_state() -> None:
    (step,) = marche_fx.report(used()).steps
    sites = [(site.kind, site.path, site.line.split(":")[0], site.size, site.status) for site in step.sites]
    cached = "keys and values cached"
    assert sites == [
        ("attention", "blocks.0.attention", "networks.py", "2 heads x 8", cached),
        ("attention", "blocks.1.attention", "networks.py", "2 heads x 8", cached),
        ("MLP", "blocks.0.mlp.fc2", "networks.py", "16 -> 32, gelu", "active tokens only"),
        ("MLP", "blocks.1.mlp.fc2", "networks.py", "16 -> 32, gelu", "active tokens only"),
    ]
    assert (step.samples, step.tokens, step.full) == (2, 30, ())
    # K and V of two sites, float32, and the three output channels.
    assert step.cache_bytes == {"attention": 4 * 2 * 30 * 16 * 4, "result": 2 * 30 * 3 * 4}


def test_rows_and_flops_of_the_last_session_are_counted() -> None:
    session = marche_fx.report(used()).session
    assert session is not None
    ((name, calls, rows, original, flops, original_flops),) = session.rows
    assert (name, calls, rows, original) == ("forward", 3, 2 * (30 + 8 + 8), 2 * 3 * 30)
    # Per token: q, k, v, output and MLP of two layers, and the head; per pair of tokens the two products of attention.
    per_row, per_pair = 2 * (2 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * 3), 2 * 2 * 2 * 16
    assert original_flops == pytest.approx(3 * 2 * 30 * (per_row + 30 * per_pair))
    assert flops == pytest.approx(2 * (30 + 8 + 8) * (per_row + 30 * per_pair))
    assert session.flops_ratio == pytest.approx(46 / 90)


def test_a_report_before_the_first_call_says_so() -> None:
    report = marche_fx.report(marche_fx.transform(Transformer(30, 16, 2).eval()))
    assert "captured at its first call" in str(report)


def test_explain_tells_the_plan_without_touching_the_model() -> None:
    model = Transformer(30, 16, 2).eval()
    methods = dict(vars(model))
    text = str(marche_fx.explain(model, X))
    assert "blocks.1.attention" in text
    assert "10%" in text
    assert vars(model).keys() == methods.keys()


def test_an_operator_that_runs_in_full_is_listed_with_its_source_and_share() -> None:
    model = WithConvolution(30, 16, 2).eval()
    (step,) = marche_fx.explain(model, X).steps
    named = [text for text, _ in step.full]
    assert any(text.startswith("aten.convolution at neighbours.convolution") for text in named)
    assert "runs on all tokens: aten.convolution" in str(marche_fx.explain(model, X)).replace("\n", " ")
    optimized = marche_fx.transform(model, strict=True, compile=False)
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match=r"aten\.convolution at neighbours\.convolution"):
        optimized(X)


@pytest.mark.parametrize("ending", ["html", "txt"])
def test_a_saved_report_shows_the_rewritten_graph(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"step.{ending}"
    marche_fx.report(used()).save(path)
    text = path.read_text()
    assert "update_cache" in text
    assert "gather_active" in text
    assert text.startswith("<!DOCTYPE html>") == (ending == "html")


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"\.html or \.txt"):
        marche_fx.report(used()).save(tmp_path / "step.pdf")
