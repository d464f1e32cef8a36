"""What the report says of operators that run on all tokens, and of sites that are not claimed for them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import UnsupportedModelError
from tests.networks import Block, FusedAttention, Mlp, WithConvolution
from tests.reporting.used import X, used


class Between(nn.Module):
    """Two blocks with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = (Block(16, FusedAttention(16, 2, 30), Mlp(16)) for _ in range(2))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


@torch.library.custom_op("marche_fx_report_test::halve", mutates_args=())
def halve(x: Tensor) -> Tensor:
    return x / 2


@halve.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def neighbours(x: Tensor) -> Tensor:
    weight = torch.ones(16, 16, 3, device=x.device)
    return x + F.conv1d(x.transpose(1, 2), weight, padding=2, dilation=2).transpose(1, 2)


@pytest.mark.parametrize(
    ("between", "operator", "reason"),
    [
        (neighbours, "aten.convolution", "mixes a window of 5 tokens"),
        (lambda x: x + x.mean(1, keepdim=True), "aten.mean", "reduces the tokens of a sample to one value"),
        (lambda x: x + x.cumsum(1), "aten.cumsum", "mixes all tokens"),
        (lambda x: x + x.roll(1, 1), "aten.index_select", "leaves tokens out, moves or joins them"),
        (lambda x: x + F.pad(x[:, :-1], (0, 0, 1, 0)), "aten.slice", "leaves tokens out, moves or joins them"),
        (lambda x: x + halve(x), "marche_fx_report_test.halve", "has no rule"),
    ],
)
def test_what_runs_on_all_tokens_says_why_and_which_cache_it_needs(
    between: Callable[[Tensor], Tensor], operator: str, reason: str
) -> None:
    (step,) = marche_fx.explain(Between(between).eval(), X).steps
    found = next(own for own in (*step.in_full, *step.behind) if own.operator == operator)
    assert (found.operator, found.reason[: len(reason)]) == (operator, reason)
    assert re.fullmatch(r"(test_report|networks)\.py:\d+", found.line)
    assert found.has_rule == (reason != "has no rule")
    assert found.cache_bytes == 2 * 30 * 16 * 4
    assert step.cache_bytes["operand"] == found.cache_bytes


def test_what_is_computed_from_an_operator_in_full_is_listed_if_it_costs() -> None:
    weight = torch.randn(16, 16)
    (step,) = marche_fx.explain(Between(lambda x: x + x.mean(1, keepdim=True) @ weight).eval(), X).steps
    (found,) = step.behind
    assert found.reason == "is computed from what runs on all tokens"
    assert found.flops == step.fixed_flops["inside"] == 2 * 2 * 16 * 16


def test_an_operator_without_a_rule_says_how_to_register_one() -> None:
    report = marche_fx.explain(Between(halve).eval(), X)
    (step,) = report.steps
    (found,) = step.without_rule
    assert "marche_fx.register_rule(torch.ops.marche_fx_report_test.halve, ...)" in found.reason
    first = step.sites[0]
    assert not first.claimed
    assert re.fullmatch(
        r"before the region: its tokens go no further than marche_fx_report_test\.halve "
        r"\(test_report\.py:\d+\), which has no rule",
        first.status,
    )
    assert (first.flops, first.rows) == (first.active_flops, first.active_rows)
    assert "outside the region: marche_fx_report_test.halve" in str(report)


class Summary(nn.Module):
    """An MLP on the mean of all tokens, which is not the tokens' any more."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(16, FusedAttention(16, 2, 30), Mlp(16))
        self.mlp = Mlp(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.block(x).cumsum(1))


def test_a_site_that_is_not_claimed_names_what_mixes_tokens_before_it() -> None:
    (step,) = marche_fx.explain(Summary().eval(), X).steps
    (site,) = [site for site in step.sites if not site.claimed]
    assert site.path == "mlp.fc2"
    assert re.fullmatch(r"after the region: aten\.cumsum \(test_report\.py:\d+\) mixes tokens before it", site.status)


def test_an_operator_that_runs_in_full_is_listed_with_its_source_and_share() -> None:
    model = WithConvolution(30, 16, 2).eval()
    report = marche_fx.explain(model, X)
    (step,) = report.steps
    (convolution,) = step.in_full
    assert (convolution.operator, convolution.path) == ("aten.convolution", "neighbours.convolution")
    assert convolution.flops == 2 * 2 * 30 * 16 * 16 * 3
    assert convolution.share == pytest.approx(convolution.flops / step.flops)
    assert "mixes a window of 3 tokens" in str(report)
    optimized = marche_fx.transform(model, strict=True, compile=False)
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match=r"aten\.convolution at neighbours\.convolution"):
        optimized(X)


def test_a_report_fits_120_columns() -> None:
    reports = [marche_fx.explain(Between(between).eval(), X) for between in (halve, neighbours)]
    for report in (marche_fx.report(used()), *reports):
        assert max(map(len, str(report).splitlines())) <= 120
