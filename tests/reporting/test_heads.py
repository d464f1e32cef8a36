"""`explain` of a head, before there is a session."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import marche_fx
from marche_fx import ArgumentError, HeadReuse, HoldBranches
from tests.api.test_denoiser import BOTH, trained_mar
from tests.head.denoisers import Denoiser, Model, denoised
from tests.head.heads import TIMES, arguments


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    return Model(Denoiser(kind).double()).eval()


def test_a_mar_s_head_is_told_without_arguments() -> None:
    mar = trained_mar()
    before = torch.random.get_rng_state()
    told = marche_fx.explain(mar)
    assert torch.equal(before, torch.random.get_rng_state())
    assert mar.diffloss.net.forward.__func__ is type(mar.diffloss.net).forward, "the original is left alone"
    assert [own.path for own in told.heads] == BOTH
    plain, guided = told.heads
    assert plain.roles == {"x": "noisy", "t": "time", "c": "condition"}
    assert [own.operator.split(" (")[0] for own in plain.slow_values] == [
        f"aten.linear at {path}.adaLN_modulation.1" for path in ("res_blocks.0", "res_blocks.1", "final_layer")
    ]
    assert all(own.causes == ("t", "c") for own in plain.slow_values)
    # Shift, scale and gate of a block, of the final layer without a gate.
    assert [own.flops for own in plain.slow_values] == [2 * 16 * 3 * 16, 2 * 16 * 3 * 16, 2 * 16 * 2 * 16]
    assert [(own.operator.split(" (")[0], own.flops) for own in plain.branches] == [
        (f"aten.add at res_blocks.{number}", 2 * 2 * 16 * 16) for number in range(2)
    ]
    assert "no guidance halves" in plain.halves
    assert "guidance halves of one noisy value" in guided.halves
    assert "res_blocks.1.adaLN_modulation.1" in str(told)


def test_any_denoiser_is_told_with_a_few_calls_of_it() -> None:
    x, c = arguments(6)
    told = marche_fx.explain(
        model_of("film"), inner="net.forward", sample=lambda own: denoised(own.net, x, TIMES[:4], c)
    )
    (head,) = told.heads
    assert head.roles == {"x": "noisy", "t": "time", "c": "condition"}
    assert [own.operator.split(" (")[0] for own in head.slow_values] == [
        "aten.linear at modulations.0",
        "aten.linear at modulations.1",
    ]
    # The products of time and of condition belong to no slow value.
    assert {own.flops for own in head.slow_values} == {2 * 6 * 18}


def test_a_report_says_what_is_held() -> None:
    model, reuse = model_of("adaln"), HeadReuse(branches=HoldBranches(3, whole=(1,)))
    optimized = marche_fx.transform(model, inner="net.forward", reuse=reuse, compile=False)
    with torch.no_grad():
        for seed in range(2):
            x, c = arguments(6, seed)
            denoised(optimized.net, x, TIMES, c)
    (head,) = marche_fx.report(optimized).heads
    assert [own.held for own in head.branches] == ["product", "whole"]
    assert head.last == "FHHFHHFHHF"
    assert "held: whole" in str(marche_fx.report(optimized))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner": "net.forward"}, "give sample=lambda model"),
        ({"inner": "net.forward", "sample": lambda own: None}, "sample called net.forward less often than tells"),
        ({"inner": "net.denoise", "sample": lambda own: None}, "no method 'net.denoise'"),
        ({"sample": lambda own: None}, "none is known of Model; name its method by inner"),
    ],
)
def test_what_tells_of_no_denoiser_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        marche_fx.explain(model_of("adaln"), **options)
