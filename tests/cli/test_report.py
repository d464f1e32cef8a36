"""``marche-fx explain`` and ``report`` on models that a user names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from marche_fx import ArgumentError
from marche_fx.cli import app
from marche_fx.reporting.first_calls import explain_first_calls
from tests.bench.models import TinyText, garments

HERE = "tests.bench.models"


def told(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_explain_tells_of_a_step_at_the_first_call_of_its_loop() -> None:
    found = told("explain", f"{HERE}:text", "--active", "0.5")
    assert "forward" in found
    assert "attention" in found
    assert "at 50% these are 8 a sample" in found


def test_explain_tells_of_each_step_method() -> None:
    model, run = garments()
    encoder, decoder = explain_first_calls(model, run)
    assert [own.steps[0].name for own in (encoder, decoder)] == ["forward_mae_encoder", "forward_mae_decoder"]
    assert all(own.steps[0].sites for own in (encoder, decoder))


def test_the_loop_ends_where_all_is_explained() -> None:
    calls: list[int] = []

    def run(given: nn.Module) -> None:
        for number in range(8):
            calls.append(number)
            given(torch.zeros(2, 16, dtype=torch.long))

    explain_first_calls(TinyText().eval(), run)
    assert calls == [0]


def test_a_loop_without_a_step_is_refused() -> None:
    with pytest.raises(ArgumentError, match="run called none of the step methods of TinyText: forward"):
        explain_first_calls(TinyText().eval(), lambda given: None)


def test_report_tells_of_a_generation_and_saves_its_page(tmp_path: Path) -> None:
    page = tmp_path / "step.html"
    found = told("report", f"{HERE}:text", "--out", str(page))
    assert "of the rows" in found
    assert f"report: {page}" in found.replace(" ", "").replace("report:", "report: ")
    assert "TinyText" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("policy", "is_exact"), [("exact", True), ("selective:0", False), ("fast", False)])
def test_report_decodes_with_the_policy_that_a_word_names(policy: str, is_exact: bool, tmp_path: Path) -> None:
    told("report", f"{HERE}:text", "--policy", policy, "--out", str(tmp_path / "step.json"))
    (step,) = json.loads((tmp_path / "step.json").read_text())["session"]["steps"]
    assert (step["rows"] == step["original_rows"]) == is_exact
