"""`explain`: of which step, and which passes ran."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError
from tests.networks import Transformer, small_mar
from tests.reporting.used import X


def test_explain_tells_the_plan_without_touching_the_model() -> None:
    model = Transformer(30, 16, 2).eval()
    methods = dict(vars(model))
    text = str(marche_fx.explain(model, X))
    assert "blocks.1.attention" in text
    assert "10%" in text
    assert vars(model).keys() == methods.keys()


def test_explain_prints_the_passes_that_ran_in_their_order() -> None:
    report = marche_fx.explain(Transformer(30, 16, 2).eval(), X)
    names = [own.name for own in report.steps[0].passes]
    assert names[:4] == ["capture", "pack", "attention", "axes"]
    assert names[-1] == "lower"
    text = " ".join(str(report).split())
    for own in report.steps[0].passes:
        assert f"{own.name} {own.seconds:.2f} s ({own.found})" in text


def test_explain_takes_the_known_step_that_the_arguments_are_of() -> None:
    mar = small_mar().eval()
    mask = torch.zeros(2, 9)
    mask[:, :4] = 1
    embedding = torch.randn(2, 16)
    encoder = marche_fx.explain(mar, X[:, :9, :4], mask, embedding)
    by_name = marche_fx.explain(mar, X[:, :9, :4], mask=mask, class_embedding=embedding)
    assert [own.steps[0].name for own in (encoder, by_name)] == ["forward_mae_encoder"] * 2
    with torch.no_grad():
        seen = mar.forward_mae_encoder(X[:, :9, :4], mask, embedding)
    assert marche_fx.explain(mar, seen, mask).steps[0].name == "forward_mae_decoder"


class Alike(nn.Module):
    """Both known steps take anything."""

    def forward_mae_encoder(self, *args: Tensor) -> Tensor:
        return args[0]

    forward_mae_decoder = forward_mae_encoder


def test_explain_says_which_steps_there_are_where_the_arguments_do_not_tell() -> None:
    with pytest.raises(ArgumentError, match=r"none accepts these arguments: forward_mae_encoder\(x.*Name one"):
        marche_fx.explain(small_mar().eval(), X)
    with pytest.raises(ArgumentError, match=r"Alike has 2, of which several accept .* step='forward_mae_encoder'"):
        marche_fx.explain(Alike().eval(), X)
