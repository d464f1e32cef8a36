"""The bundled head with another denoising."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marche_fx import ArgumentError, Denoising
from marche_fx.denoising.bundled import BundledSampler
from marche_fx.denoising.solvers import SOLVERS
from marche_fx.denoising.spacing import SPACINGS, chosen_draws, evenly_spaced, kept_timesteps
from marche_fx.models.diffusion import GaussianDiffusion, cosine_betas
from tests.denoising.gaussians import Gaussian
from tests.denoising.heads import CHANNELS, CONDITION, bundled_head, calls_of, normal, replaced

WHOLE = GaussianDiffusion(cosine_betas())


def fixed(denoising: Denoising, process: GaussianDiffusion) -> BundledSampler:
    return BundledSampler(denoising, WHOLE, process, lambda given: (0, 1))


@given(steps=st.integers(2, 40), cfg=st.sampled_from([1.0, 3.0]), temperature=st.sampled_from([1.0, 0.8]))
@torch.no_grad()
def test_as_many_even_steps_as_the_model_has_change_no_bit(steps: int, cfg: float, temperature: float) -> None:
    head, z = bundled_head(steps), normal(4, CONDITION)
    noise = normal(steps, 4 if cfg == 1 else 2, CHANNELS, seed=3)
    expected = head.sample(z, temperature, cfg, noise=noise)
    for asked in (Denoising(), Denoising(steps), Denoising(guidance=(0, 1))):
        assert torch.equal(replaced(head, asked).sample(z, temperature, cfg, noise=noise), expected)


@torch.no_grad()
def test_uneven_timesteps_of_a_model_stay_unless_others_are_asked_for() -> None:
    head, z, noise = bundled_head(4), normal(3, CONDITION), normal(4, 3, CHANNELS, seed=3)
    head.gen_diffusion = head.gen_diffusion.respaced(torch.tensor([0, 3, 500, 999]))
    expected = head.sample(z, noise=noise)
    assert torch.equal(replaced(head, Denoising(guidance=(0.1, 0.5))).sample(z, noise=noise), expected)
    assert not torch.equal(replaced(head, Denoising(4)).sample(z, noise=noise), expected)


@given(
    own=st.integers(2, 40), steps=st.integers(2, 40), spacing=st.sampled_from(list(SPACINGS)), last=st.integers(60, 999)
)
@torch.no_grad()
def test_other_steps_are_those_of_a_head_made_for_them(own: int, steps: int, spacing: str, last: int) -> None:
    z, noise = normal(3, CONDITION), normal(max(own, steps), 3, CHANNELS, seed=3)
    kept = kept_timesteps(WHOLE.signal, steps, spacing, last)
    made = bundled_head(own)
    made.gen_diffusion = GaussianDiffusion(cosine_betas(), torch.tensor(kept), limit=1.0)
    expected = made.sample(z, 0.8, noise=noise[chosen_draws(kept, len(noise), 1000)])
    found = replaced(bundled_head(own), Denoising(steps, spacing, clip=last)).sample(z, 0.8, noise=noise)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("solver", list(SOLVERS))
@torch.no_grad()
def test_a_solver_starts_from_the_first_draw_and_where_there_is_signal(solver: str) -> None:
    head, z, noise = bundled_head(8), normal(3, CONDITION), normal(8, 3, CHANNELS, seed=3)
    asked = replaced(head, Denoising(5, solver=solver))
    other = torch.cat([noise[:1], normal(7, 3, CHANNELS, seed=4)])
    assert torch.equal(asked.sample(z, noise=noise), asked.sample(z, noise=other))
    assert torch.equal(asked.sample(z, noise=noise), asked.sample(z, noise=noise[:1]))
    assert len(asked.gen_diffusion) == 1
    assert not torch.equal(asked.sample(z, noise=noise), asked.sample(z, noise=noise.flip(0)))
    assert [timestep for timestep, _ in calls_of(head, lambda: asked.sample(z, noise=noise))] == [950, 712, 475, 238, 0]


@given(steps=st.integers(2, 12), solver=st.sampled_from(list(SOLVERS)), cfg=st.sampled_from([1.0, 2.5]))
@torch.no_grad()
def test_a_solver_solves_the_flow_of_the_network(steps: int, solver: str, cfg: float) -> None:
    head, z, noise = bundled_head(8), normal(4, CONDITION), normal(12, 4 if cfg == 1 else 2, CHANNELS, seed=3)
    kept = kept_timesteps(WHOLE.signal, steps, "even", 950)
    signal = [WHOLE.signal[t].item() for t in kept]

    def start(x: Tensor, index: int) -> Tensor:
        times = torch.full((len(x),), kept[index])
        noise, _ = (head.net(x, times, z) if cfg == 1 else head.net.forward_with_cfg(x, times, z, cfg)).chunk(2, -1)
        return ((x - math.sqrt(1 - signal[index]) * noise) / math.sqrt(signal[index])).clamp(-1, 1)

    x = noise[0] if cfg == 1 else torch.cat([noise[0], noise[0]])
    found = replaced(head, Denoising(steps, solver=solver)).sample(z, 1.0, cfg, noise=noise)
    torch.testing.assert_close(found, SOLVERS[solver](start, signal, x))


@given(
    steps=st.integers(2, 40),
    spacing=st.sampled_from(list(SPACINGS)),
    last=st.sampled_from([999, 950, 700]),
    mean=st.floats(-2, 2),
    deviation=st.floats(0.1, 1),
)
def test_ancestral_steps_keep_mean_and_variance_at_any_spacing(
    steps: int, spacing: str, last: int, mean: float, deviation: float
) -> None:
    """With the exact denoiser of a Gaussian samples are a linear map of the noise, as in tests/models.

    What is lost is known: a start at ``last`` from noise alone, in place of what noising would have left there.
    """
    target, kept = Gaussian(mean, deviation), kept_timesteps(WHOLE.signal, steps, spacing, last)
    process = GaussianDiffusion(cosine_betas(), torch.tensor(kept))

    def exact(x: Tensor, t: Tensor) -> Tensor:
        i = kept.index(int(t[0]))
        now, before = (WHOLE.signal[kept[i]].item(), WHOLE.signal[kept[i - 1]].item() if i else 1.0)
        smallest, largest = process.posterior_log_variance[i].item(), process.betas[i].log().item()
        share = (math.log(target.variance_before(now, before)) - smallest) / (largest - smallest) if i else 0.0
        noise = target.noise(x, now)
        return torch.cat([noise, torch.full_like(noise, 2 * share - 1)], -1)

    noise = torch.cat([torch.zeros(steps, 1, dtype=torch.float64), torch.eye(steps, dtype=torch.float64)], 1)
    sampler = fixed(Denoising(steps, spacing, clip=last), GaussianDiffusion(cosine_betas(), evenly_spaced(1000, 50)))
    rows = sampler.sample(exact, noise[:, :, None]).flatten()
    first = WHOLE.signal[last].item()
    gain = math.sqrt(first) * deviation**2 / target.variance_at(first)
    expected_mean = mean - gain * math.sqrt(first) * mean
    expected_variance = deviation**2 - gain**2 * target.variance_at(first) + gain**2
    assert rows[0].item() == pytest.approx(expected_mean, abs=1e-3)
    assert (rows[1:] - rows[0]).square().sum().item() == pytest.approx(expected_variance, abs=1e-4)


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_a_solver_takes_a_temperature_of_one_alone(solver: str) -> None:
    sampler = replaced(bundled_head(8), Denoising(5, solver=solver))
    with pytest.raises(ArgumentError, match=r"adds no noise.*temperature=0.8"):
        sampler.sample(normal(2, CONDITION), 0.8)


@torch.no_grad()
def test_fewer_draws_than_steps_are_refused() -> None:
    sampler = replaced(bundled_head(8), Denoising(10))
    with pytest.raises(ArgumentError, match="holds 8 draws"):
        sampler.sample(normal(2, CONDITION), noise=normal(8, 2, CHANNELS))


@pytest.mark.parametrize("asked", [Denoising(1001), Denoising(anneal=(5, 1001)), Denoising(60, clip=40)])
def test_more_steps_than_the_schedule_has_are_refused_at_once(asked: Denoising) -> None:
    with pytest.raises(ArgumentError, match="denoising steps must lie in"):
        replaced(bundled_head(8), asked)


@pytest.mark.parametrize("step", range(4))
@torch.no_grad()
def test_annealed_steps_are_those_of_the_decoding_step(step: int) -> None:
    head, asked = bundled_head(8), Denoising(anneal=(11, 2))
    own = replaced(head, asked, step, 4)
    noise = normal(11, 3, CHANNELS)
    count = (11, 8, 5, 2)[step]
    assert len(own.gen_diffusion) == 11
    expected = replaced(head, Denoising(count)).sample(normal(3, CONDITION), noise=noise)
    assert torch.equal(own.sample(normal(3, CONDITION), noise=noise), expected)
    assert len(calls_of(head, lambda: own.sample(normal(3, CONDITION)))) == count


@torch.no_grad()
def test_outside_of_its_interval_guidance_is_not_computed() -> None:
    head, z = bundled_head(5), normal(6, CONDITION)
    own = replaced(head, Denoising(guidance=(0.2, 0.6)))
    assert calls_of(head, lambda: own.sample(z, cfg=3.0)) == [(999, 3), (749, 3), (500, 6), (250, 6), (0, 3)]
    assert calls_of(head, lambda: own.sample(z)) == [(t, 6) for t in (999, 749, 500, 250, 0)]


@given(low=st.floats(0, 0.9), width=st.floats(0.05, 1), solver=st.sampled_from(["ancestral", *SOLVERS]))
@torch.no_grad()
def test_guidance_in_an_interval_is_a_scale_of_one_outside_of_it(low: float, width: float, solver: str) -> None:
    head, z, noise, high = bundled_head(9), normal(6, CONDITION), normal(9, 3, CHANNELS, seed=2), min(1.0, low + width)

    def by_scale(x: Tensor, t: Tensor) -> Tensor:
        scale = 3.0 if low < (int(t[0]) + 1) / 1000 <= high else 1.0
        return head.net.forward_with_cfg(x, t, z, scale)

    expected = fixed(Denoising(solver=solver), head.gen_diffusion).sample(by_scale, torch.cat([noise, noise], 1))
    found = replaced(head, Denoising(solver=solver, guidance=(low, high))).sample(z, cfg=3.0, noise=noise)
    torch.testing.assert_close(found[:3], expected[:3])


def test_the_head_itself_stays_as_it_is() -> None:
    head = bundled_head(8)
    before = dict(vars(head))
    own = replaced(head, Denoising(3))
    assert vars(head) == before
    assert own.net is head.net
    assert (len(own.gen_diffusion), len(head.gen_diffusion)) == (3, 8)
