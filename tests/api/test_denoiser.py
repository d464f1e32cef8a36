"""`transform(..., reuse=...)`: the denoiser of a head as a captured step."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import marche_fx
from marche_fx import ArgumentError, Denoising, HeadReuse, Hold, Interpolate
from marche_fx.api.denoising import decoding_at
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
    assert not len(head.refused)
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


def drawn(model: Any, step: int = 0, of: int = 1) -> torch.Tensor:
    """Six tokens of a transformed model's head, in a decoding step."""
    generator = torch.Generator().manual_seed(step)
    z = torch.randn(12, 16, generator=generator).double()
    with torch.no_grad(), decoding_at(model, step, of):
        return model.diffloss.sample(z, 1.0, 2.0, generator=generator)[:6]


def test_annealed_steps_are_interpolated() -> None:
    mar, asked = trained_mar(), Denoising(anneal=(9, 3))
    plain = marche_fx.transform(mar, denoising=asked, compile=False)
    optimized = marche_fx.transform(mar, denoising=asked, reuse=HeadReuse(Interpolate(4)), compile=False)
    for step in range(4):
        torch.testing.assert_close(drawn(optimized, step, 4), drawn(plain, step, 4), rtol=0.2, atol=0.2)
    records = optimized._marche_fx.heads[BOTH[1]].record.denoisings
    # Two calls of the first denoising told which argument is what; its timesteps were known by then.
    assert [len(own.calls) for own in records] == [7, 7, 5, 3]
    assert [own.slow for own in records] == [4, 4, 4, 3]


@pytest.mark.parametrize("interval", [None, (0.2, 0.9)])
@pytest.mark.parametrize("solver", ["ancestral", "dpm++2m"])
def test_the_timesteps_of_a_denoising_are_known_before_its_first_call(solver: str, interval: Any) -> None:
    asked = Denoising(8, solver=solver, guidance=interval)
    optimized = marche_fx.transform(trained_mar(), denoising=asked, reuse=HeadReuse(Hold(3)), compile=False)
    for step in range(4):
        drawn(optimized, step, 4)
    for path in BOTH if interval else BOTH[1:]:
        first, *_, last = optimized._marche_fx.heads[path].record.denoisings
        assert first.slow <= 3
        # By then those timesteps are known at which guidance holds, or does not.
        assert last.slow == -(-len(last.calls) // 3)


def test_few_timesteps_that_were_kept_to_are_not_expected_of_many() -> None:
    optimized = marche_fx.transform(
        trained_mar(), denoising=Denoising(anneal=(9, 3)), reuse=HeadReuse(Interpolate(4)), compile=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Those of three steps are among those of nine.
        for step in (3, 3, 3, 0):
            drawn(optimized, step, 4)
    records = optimized._marche_fx.heads[BOTH[1]].record.denoisings
    assert [(len(own.calls), own.slow) for own in records] == [(1, 1), (3, 3), (3, 3), (9, 4)]


def test_a_denoising_that_does_not_keep_to_its_timesteps_is_told() -> None:
    optimized = marche_fx.transform(trained_mar(), denoising="8", reuse="balanced", compile=False)
    drawn(optimized)
    head = optimized._marche_fx.heads[BOTH[1]]
    x, c = torch.randn(6, 4).double(), torch.randn(6, 16).double()
    head.expect([900, 500, 100])

    def call(time: int) -> None:
        with torch.no_grad():
            optimized.diffloss.net.forward_with_cfg(x, torch.full((6,), time), c, 2.0)

    call(900)
    call(500)
    with pytest.warns(UserWarning, match=r"another timestep \(400\) than its loop announced"):
        call(400)
    assert head.record.denoisings[-1].calls == "FcF"
