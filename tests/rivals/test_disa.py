"""DiSA's numbers of denoising steps, and what it draws at them."""

from __future__ import annotations

import pytest
import torch

from marche_fx.denoising import parse_denoising
from marche_fx.models.diffusion import GaussianDiffusion, cosine_betas
from marche_fx.rivals import RIVALS, with_sampler
from marche_fx.rivals.disa import timesteps_of
from tests.denoising.heads import CHANNELS, CONDITION, bundled_head, calls_of, normal

ROWS = 3


def called(step: int, of: int = 64) -> list[tuple[int, int]]:
    head = bundled_head(100)
    sampler = RIVALS["disa"](head.gen_diffusion)(step, of)
    with torch.no_grad():
        return calls_of(head, lambda: with_sampler(head, sampler).sample(normal(2 * ROWS, CONDITION), cfg=3.0))


@pytest.mark.parametrize(("step", "evaluations"), [(0, 48), (1, 47), (31, 26), (62, 5), (63, 5)])
def test_a_decoding_step_calls_the_head_so_often(step: int, evaluations: int) -> None:
    """Fifty steps and five, fewer where several lie behind the clip."""
    calls = called(step)
    assert len(calls) == evaluations
    assert {rows for _, rows in calls} == {2 * ROWS}
    assert calls[0][0] == 950
    assert calls[-1][0] == 0


def test_it_draws_as_a_diffusion_at_its_timesteps_does() -> None:
    head = bundled_head(100)
    for step, count in ((0, 50), (20, 35), (63, 5)):
        stride = 999 / (count - 1)
        kept = sorted({min(round(place * stride), 950) for place in range(count)})
        plain = GaussianDiffusion(cosine_betas(), torch.tensor(kept), 1.0)
        z, noise = normal(ROWS, CONDITION), normal(len(kept), ROWS, CHANNELS, seed=4)
        with torch.no_grad():
            found = with_sampler(head, RIVALS["disa"](head.gen_diffusion)(step, 64)).sample(z, noise=noise)
            expected = plain.sample(lambda x, t: head.net(x, t, z), noise)  # noqa: B023
        torch.testing.assert_close(found, expected)


def test_the_word_of_denoising_is_nearly_the_same() -> None:
    asked = parse_denoising("disa")
    own = [len(timesteps_of(step, 64, 1000)) for step in range(64)]
    near = [asked.steps_at(step, 64, 100) for step in range(64)]
    assert all(0 <= one - other <= 3 for one, other in zip(near, own))
    assert sum(near) / sum(own) == pytest.approx(1.04, abs=0.02)


def test_one_decoding_step_has_the_most() -> None:
    assert timesteps_of(0, 1, 1000) == timesteps_of(63, 64, 1000)
