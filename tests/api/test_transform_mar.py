"""`transform` on MAR."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.models.mar import MAR
from marche_fx.passes.lower.kept import KEPT
from tests.api.mars import draws, random_mar
from tests.around import FULL
from tests.sessions import records


@cache
def the_mar() -> MAR:
    return random_mar()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_full_refresh_generates_what_the_original_does(samples: int, cfg: float, mode: Callable[[], Any]) -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    with mode():
        expected = mar.sample_tokens(**draws(mar, samples, cfg=cfg))
        found = optimized.sample_tokens(**draws(mar, samples, cfg=cfg))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("depth", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_any_depth_generates_what_the_original_does(depth: int) -> None:
    mar = random_mar(depth, side=4)
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    with torch.no_grad():
        expected = mar.sample_tokens(**draws(mar, 2, steps=4))
        found = optimized.sample_tokens(**draws(mar, 2, steps=4))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_the_decoder_at_full_refresh_is_bit_identical() -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    mask = torch.zeros(2, 36)
    mask[:, 20:] = 1
    with marche_fx.decoding(optimized):
        for seed in range(3):
            x = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(optimized.forward_mae_decoder(x, mask).clone(), mar.forward_mae_decoder(x, mask))


@torch.no_grad()
def test_partial_refresh_computes_fewer_rows_and_stays_near_the_original() -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=SelectiveRefresh(0.1, warmup=2), compile=False)
    expected = mar.sample_tokens(**draws(mar, 2, steps=12))
    found = optimized.sample_tokens(**draws(mar, 2, steps=12))
    difference = (found - expected).abs().max()
    assert 1e-4 < difference / expected.abs().max() < 0.5
    decoder = [record.active for record in records(optimized) if record.name == "forward_mae_decoder"]
    encoder = [record for record in records(optimized) if record.name == "forward_mae_encoder"]
    assert decoder[:2] == [40, 40]
    assert max(decoder[2:]) <= 24
    assert encoder[-1].active < encoder[-1].visible
    assert sum(record.flops for record in records(optimized)) < sum(r.original_flops for r in records(optimized))


@torch.no_grad()
def test_the_rows_that_the_loop_reads_are_among_those_computed() -> None:
    mar = the_mar()
    # Nothing is refreshed: what is computed is what changed and what the loop reads.
    optimized = marche_fx.transform(mar, refresh=SelectiveRefresh(0.0, warmup=1, tolerance=0.3), compile=False)
    seen: list[tuple[Tensor, Tensor]] = []
    with marche_fx.decoding(optimized):
        mask = torch.ones(1, 36)
        for step in range(4):
            x = optimized.forward_mae_encoder(torch.zeros(1, 36, 4), mask, torch.ones(1, 16))
            z = optimized.forward_mae_decoder(x, mask)
            rows = torch.zeros(1, 36, dtype=torch.bool)
            rows[0, 5 * step : 5 * step + 5] = True
            exact = mar.forward_mae_decoder(
                mar.forward_mae_encoder(torch.zeros(1, 36, 4), mask, torch.ones(1, 16)), mask
            )
            seen.append((z[rows.nonzero(as_tuple=True)].clone(), exact[rows]))
            mask = mask.clone()
            mask[0, 5 * step : 5 * step + 5] = 0
    for found, expected in seen:
        # Stale neighbours blur the rows, but a row of another token would be far off.
        assert (found - expected).norm() < 0.5 * expected.norm()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_of_the_model_and_of_autocast_reach_the_caches(dtype: torch.dtype) -> None:
    mar = random_mar(side=4).to(dtype)
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    arguments = draws(mar, 2, steps=3)
    tolerance = 1e-4 if dtype is torch.float32 else 0.1
    found, expected = optimized.sample_tokens(**arguments), mar.sample_tokens(**arguments)
    assert found.dtype is expected.dtype
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@torch.no_grad()
def test_autocast_around_the_call_is_honoured_even_when_results_are_read_later() -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    mask = torch.zeros(2, 36)
    mask[:, 20:] = 1
    x = torch.randn(2, 24, 16)
    with marche_fx.decoding(optimized):
        with torch.autocast("cpu", torch.bfloat16):
            z = optimized.forward_mae_decoder(x, mask)
            expected = mar.forward_mae_decoder(x, mask)
        assert z.dtype is expected.dtype
        assert torch.equal(z.clone(), expected)
    plain = mar.forward_mae_decoder(x, mask)
    assert not torch.equal(plain, expected.to(plain.dtype))


@pytest.mark.slow
@torch.no_grad()
def test_a_generation_after_the_first_compiles_nothing_and_partial_steps_share_a_graph() -> None:
    mar = random_mar(depth=1, side=9)
    optimized = marche_fx.transform(mar, refresh=SelectiveRefresh(0.1), compile=True)
    eager = marche_fx.transform(mar, refresh=SelectiveRefresh(0.1), compile=False)
    KEPT.forget()
    before = KEPT.count
    optimized.sample_tokens(**draws(mar, 1, steps=64))
    assert len({record.active for record in records(optimized)}) > 4
    assert KEPT.count - before == 2, "one for each step method, whatever the number of active tokens"
    arguments = draws(mar, 1, steps=64, seed=1)
    found = optimized.sample_tokens(**arguments)
    assert KEPT.count - before == 2
    expected = eager.sample_tokens(**arguments)
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


class WithoutEncoder(nn.Module):
    """A descendant of MAR that puts masks among all tokens in its decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.mask_token, self.blocks = (
            nn.Linear(4, 16),
            nn.Parameter(torch.randn(16)),
            the_mar().decoder_blocks,
        )

    def forward_mae_decoder(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x: Tensor = torch.where(mask[..., None], self.mask_token, self.into(tokens)) + torch.arange(36)[:, None].sin()
        for block in self.blocks:
            x = block(x)
        return x

    @torch.no_grad()
    def sample_tokens(self, bsz: int) -> Tensor:
        tokens, mask = torch.zeros(bsz, 36, 4), torch.ones(bsz, 36, dtype=torch.bool)
        for start in range(0, 36, 3):
            rows = slice(start, start + 3)
            tokens[:, rows] = self.forward_mae_decoder(tokens, mask)[:, rows, :4]
            mask[:, rows] = False
        return tokens


def test_a_descendant_with_a_decoder_alone_is_known() -> None:
    model = WithoutEncoder().eval()
    exact = marche_fx.transform(model, refresh=FULL, compile=False)
    assert torch.equal(exact.sample_tokens(2), model.sample_tokens(2))
    optimized = marche_fx.transform(model, compile=False)
    optimized.sample_tokens(2)
    session = marche_fx.report(optimized).session
    assert session is not None
    assert session.rows_ratio < 0.7
