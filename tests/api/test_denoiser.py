"""`transform(..., reuse=...)`: the denoiser of a head as a captured step."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import marche_fx
from marche_fx import ArgumentError, HeadReuse, Interpolate
from tests.head.denoisers import Denoiser, Model
from tests.networks import small_mar

BOTH = ["diffloss.net.forward", "diffloss.net.forward_with_cfg"]


def trained_mar() -> Any:
    """A MAR whose head does not start as the identity, with ten denoising steps."""
    torch.manual_seed(0)
    mar = small_mar(side=4, width=16, buffer=4)
    mar.diffloss = type(mar.diffloss)(4, 16, 2, 16, 10)
    for parameter in mar.diffloss.parameters():
        nn.init.normal_(parameter, std=0.2)
    # A whole generation makes much of a rounding.
    return mar.double().eval()


@torch.no_grad()
@pytest.mark.parametrize(("compile", "cfg"), [(False, 1.0), (False, 2.0), (True, 2.0)])
def test_a_whole_generation_is_the_same(compile: bool, cfg: float) -> None:
    mar = trained_mar()
    optimized = marche_fx.transform(mar, refresh="exact", reuse="exact", compile=compile)
    images = [model.sample_tokens(5, 4, cfg, generator=torch.Generator().manual_seed(3)) for model in (mar, optimized)]
    torch.testing.assert_close(*images, atol=1e-8, rtol=1e-8)
    heads = optimized._marche_fx.heads
    assert list(heads) == BOTH
    head = heads[BOTH[cfg != 1]]
    assert not head.refused
    assert {len(own.calls) for own in head.record.denoisings} == {8, 10}


@torch.no_grad()
def test_reuse_is_close_and_reported() -> None:
    mar = trained_mar()
    optimized = marche_fx.transform(mar, reuse=HeadReuse(Interpolate(5), guidance=2), compile=False)
    assert "not captured yet" in str(marche_fx.report(optimized))
    for seed in range(3):
        torch.manual_seed(seed)
        z, noise = torch.randn(12, 16).double(), torch.randn(10, 6, 4).double()
        found, expected = (own.diffloss.sample(z, cfg=2.0, noise=noise)[:6] for own in (optimized, mar))
    assert 0 < float((found - expected).std() / expected.std()) < 0.05
    report = marche_fx.report(optimized)
    told = report.heads[1]
    assert told.roles == {"x": "noisy", "t": "time", "c": "condition", "cfg_scale": "condition"}
    assert (told.last, told.slow, told.as_is) == ("FcFcFcFcFc", 5, 2)
    assert sum(part.share for part in told.parts) == pytest.approx(1)
    assert told.flops_ratio < 1
    assert "FcFcFcFcFc, slow values computed at 5 timesteps" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["heads"][1]["path"] == BOTH[1]


@torch.no_grad()
def test_the_original_and_its_structure_are_left_alone() -> None:
    mar = trained_mar()
    before = mar.diffloss.net.forward
    optimized = marche_fx.transform(mar, reuse="exact")
    assert mar.diffloss.net.forward == before
    assert optimized.diffloss.net is not mar.diffloss.net
    assert list(optimized.state_dict()) == list(mar.state_dict())
    assert all(a is b for a, b in zip(optimized.parameters(), mar.parameters(), strict=True))
    assert all(a is b for a, b in zip(optimized.diffloss.parameters(), mar.diffloss.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reuse": "exact"}, "none is known of Model; name its method by inner"),
        ({"inner": "net.forward"}, 'pass reuse="exact"'),
        ({"inner": "net.denoise", "reuse": "exact"}, "no method 'net.denoise' of a child to be a denoiser"),
        ({"inner": "forward", "reuse": "exact"}, "no method 'forward' of a child to be a denoiser"),
        ({"inner": "net.forward", "reuse": 0.5}, "must be a HeadReuse or the name of a preset"),
    ],
)
def test_what_names_no_denoiser_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        marche_fx.transform(Model(Denoiser("adaln")).eval(), **options)
