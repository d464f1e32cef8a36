import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from marche_fx.denoising.spacing import evenly_spaced
from marche_fx.errors import ArgumentError
from marche_fx.models.diffusion import (
    GaussianDiffusion,
    cosine_betas,
    discrete_gaussian_log_likelihood,
    gaussian_divergence,
)

WHOLE = GaussianDiffusion(cosine_betas())
kept_timesteps = st.sets(st.integers(0, 999), min_size=2, max_size=50).map(lambda kept: torch.tensor(sorted(kept)))
values = st.floats(-3, 3)


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("t", [0, 1, 10, 500, 990, 998])
def test_the_cosine_schedule_leaves_the_signal_of_its_formula(t: int) -> None:
    def formula(time: float) -> float:
        return math.cos((time / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    assert WHOLE.signal[t].item() == pytest.approx(formula(t + 1) / formula(0), rel=1e-9)


def test_the_last_beta_is_cut_below_one() -> None:
    assert cosine_betas()[-1] == 0.999
    assert (cosine_betas().diff() > 0).all()


@given(t=st.integers(0, 999))
def test_noising_at_once_has_the_mean_and_variance_of_noising_step_by_step(t: int) -> None:
    mean, variance = 1.0, 0.0
    for beta in cosine_betas()[: t + 1].tolist():
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    index = torch.tensor([t])
    start_alone = WHOLE.add_noise(column(1), index, column(0)).item()
    noise_alone = WHOLE.add_noise(column(0), index, column(1)).item()
    assert start_alone == pytest.approx(mean, rel=1e-9)
    assert noise_alone**2 == pytest.approx(variance, rel=1e-9)


@given(kept=kept_timesteps)
def test_respacing_keeps_the_signal_of_every_kept_timestep(kept: Tensor) -> None:
    respaced = GaussianDiffusion(cosine_betas(), kept)
    torch.testing.assert_close(respaced.signal, WHOLE.signal[kept])
    torch.testing.assert_close(torch.cumprod(1 - respaced.betas, 0), WHOLE.signal[kept])


@given(steps=st.integers(2, 1000), data=st.data())
def test_kept_timesteps_are_evenly_spaced_and_include_both_ends(steps: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, steps))
    kept = evenly_spaced(steps, count)
    gaps = kept.diff()
    assert len(kept) == count
    assert (kept[0], kept[-1]) == (0, steps - 1)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("count", [0, 1, 1001])
def test_a_number_of_denoising_steps_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ArgumentError, match=r"2\.\.1000"):
        evenly_spaced(1000, count)


@given(kept=kept_timesteps, start=values, current=values, data=st.data())
def test_the_posterior_is_the_joint_gaussian_conditioned(
    kept: Tensor, start: float, current: float, data: st.DataObject
) -> None:
    """Given x0, the pair (x_before, x_now) is jointly Gaussian; condition it on x_now."""
    process = GaussianDiffusion(cosine_betas(), kept)
    i = data.draw(st.integers(1, len(kept) - 1))
    before, now = WHOLE.signal[kept[i - 1]].item(), WHOLE.signal[kept[i]].item()
    carried = math.sqrt(now / before)  # x_now = carried * x_before + noise
    variance_before, variance_now, covariance = 1 - before, 1 - now, carried * (1 - before)
    gain = covariance / variance_now
    mean = math.sqrt(before) * start + gain * (current - math.sqrt(now) * start)
    variance = variance_before - gain * covariance

    found = process.posterior_mean(column(start), column(current), torch.tensor([i])).item()
    assert found == pytest.approx(mean, rel=1e-6, abs=1e-9)
    assert process.posterior_variance[i].item() == pytest.approx(variance, rel=1e-6)
    assert process.posterior_log_variance[i].exp().item() == pytest.approx(variance, rel=1e-6)


def test_the_first_timesteps_posterior_is_the_start_itself() -> None:
    assert WHOLE.posterior_variance[0] == 0
    assert WHOLE.posterior_mean(column(0.7), column(2.0), torch.tensor([0])).item() == pytest.approx(0.7)
    assert WHOLE.posterior_log_variance[0] == WHOLE.posterior_log_variance[1]


@given(start=values, noise=values, t=st.integers(0, 999))
def test_predicting_with_the_true_noise_gives_the_posterior_mean(start: float, noise: float, t: int) -> None:
    index = torch.tensor([t])
    current = WHOLE.add_noise(column(start), index, column(noise))
    mean, _ = WHOLE.predict(torch.cat([column(noise), column(0)], -1), current, index)
    expected = WHOLE.posterior_mean(column(start), current, index)
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("t", [1, 300, 999])
def test_the_learned_variance_moves_between_its_bounds(t: int) -> None:
    def variance(position: float) -> float:
        output = torch.cat([column(0), column(position)], -1)
        return WHOLE.predict(output, column(0), torch.tensor([t]))[1].exp().item()

    smallest, largest = WHOLE.posterior_variance[t].item(), WHOLE.betas[t].item()
    assert variance(-1) == pytest.approx(smallest, rel=1e-9)
    assert variance(1) == pytest.approx(largest, rel=1e-9)
    assert variance(0) == pytest.approx(math.sqrt(smallest * largest), rel=1e-9)


@given(mean_a=values, mean_b=values, log_variance_a=values, log_variance_b=values)
def test_the_divergence_is_that_of_torch(
    mean_a: float, mean_b: float, log_variance_a: float, log_variance_b: float
) -> None:
    a = torch.distributions.Normal(column(mean_a), column(math.exp(log_variance_a / 2)))
    b = torch.distributions.Normal(column(mean_b), column(math.exp(log_variance_b / 2)))
    found = gaussian_divergence(column(mean_a), column(log_variance_a), column(mean_b), column(log_variance_b))
    torch.testing.assert_close(found, torch.distributions.kl_divergence(a, b), rtol=1e-9, atol=1e-9)


@given(mean=st.floats(-1.5, 1.5), log_scale=st.floats(-3, 1))
def test_the_bins_of_the_discrete_likelihood_share_out_all_probability(mean: float, log_scale: float) -> None:
    bins = torch.linspace(-1, 1, 256, dtype=torch.float64)
    probability = discrete_gaussian_log_likelihood(bins, column(mean), column(log_scale)).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-9)


def test_the_discrete_likelihood_of_a_bin_is_the_normal_mass_in_it() -> None:
    normal = stats.norm(0.1, math.exp(-2))
    expected = math.log(normal.cdf(0.3 + 1 / 255) - normal.cdf(0.3 - 1 / 255))
    assert discrete_gaussian_log_likelihood(column(0.3), column(0.1), column(-2)).item() == pytest.approx(expected)


def test_a_perfect_denoiser_has_no_loss_above_timestep_zero() -> None:
    index = torch.arange(1, 1000, 37)
    start = torch.randn(len(index), 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(len(index), 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def perfect(current: Tensor, timestep: Tensor) -> Tensor:
        return torch.cat([noise, -torch.ones_like(noise)], -1)

    assert WHOLE.loss(perfect, start, index, noise).abs().max() < 1e-6


@pytest.mark.parametrize("t", [0, 1, 500])
def test_the_loss_is_the_squared_error_of_the_noise_plus_the_bound_in_bits(t: int) -> None:
    start, noise, predicted, position, index = column(0.3), column(0.5), column(0.7), column(0.2), torch.tensor([t])
    signal = WHOLE.signal[t].item()
    current = math.sqrt(signal) * start + math.sqrt(1 - signal) * noise
    implied = (current - math.sqrt(1 - signal) * predicted) / math.sqrt(signal)
    smallest, largest = WHOLE.posterior_log_variance[t].item(), WHOLE.betas[t].log().item()
    scale = math.exp(0.5 * (0.6 * largest + 0.4 * smallest))
    mean = WHOLE.posterior_mean(implied, current, index)
    if t == 0:
        normal = stats.norm(mean.item(), scale)
        nats = -math.log(normal.cdf(0.3 + 1 / 255) - normal.cdf(0.3 - 1 / 255))
    else:
        target = torch.distributions.Normal(
            WHOLE.posterior_mean(start, current, index), WHOLE.posterior_variance[t].sqrt()
        )
        nats = torch.distributions.kl_divergence(target, torch.distributions.Normal(mean, scale)).item()
    loss = WHOLE.loss(lambda x, timestep: torch.cat([predicted, position], -1), start, index, noise)
    assert loss.item() == pytest.approx((0.7 - 0.5) ** 2 + nats / math.log(2), rel=1e-6)


def test_the_variational_bound_trains_the_variance_but_not_the_mean() -> None:
    predicted = torch.full((3, 4), 0.5, dtype=torch.float64, requires_grad=True)
    position = torch.full((3, 4), 0.5, dtype=torch.float64, requires_grad=True)
    noise, index = torch.zeros(3, 4, dtype=torch.float64), torch.tensor([0, 400, 999])

    def denoiser(current: Tensor, timestep: Tensor) -> Tensor:
        return torch.cat([predicted, position], -1)

    WHOLE.loss(denoiser, torch.zeros(3, 4, dtype=torch.float64), index, noise).sum().backward()
    assert predicted.grad is not None
    assert position.grad is not None
    torch.testing.assert_close(predicted.grad, 2 * (predicted.detach() - noise) / 4)
    assert (position.grad != 0).all()


def test_the_denoiser_is_told_timesteps_of_the_whole_schedule() -> None:
    process, told = GaussianDiffusion(cosine_betas(), torch.tensor([3, 500, 999])), []

    def denoiser(current: Tensor, timestep: Tensor) -> Tensor:
        told.append(timestep.tolist())
        return torch.cat([current, current], -1)

    start = torch.zeros(2, 4, dtype=torch.float64)
    process.loss(denoiser, start, torch.tensor([2, 0]), start)
    process.sample(denoiser, torch.zeros(3, 2, 4, dtype=torch.float64))
    assert told == [[999, 3], [999, 999], [500, 500], [3, 3]]


@given(steps=st.integers(2, 60), target_mean=values, target_scale=st.floats(0.1, 1))
def test_sampling_a_gaussian_with_its_exact_denoiser_recovers_its_mean_and_variance(
    steps: int, target_mean: float, target_scale: float
) -> None:
    """For a Gaussian target the exact denoiser is linear, so the sampler is a linear map of its noise.

    Its constant part is the mean of the samples, and the sum of its squared coefficients, found by feeding unit
    vectors as noise, their variance: no randomness enters the test.
    """
    kept = evenly_spaced(1000, steps)
    process = GaussianDiffusion(cosine_betas(), kept)
    target_variance = target_scale**2

    def exact(current: Tensor, timestep: Tensor) -> Tensor:
        i = int((kept == timestep[0]).nonzero())
        now = WHOLE.signal[kept[i]].item()
        before = WHOLE.signal[kept[i - 1]].item() if i else 1.0
        variance_now = now * target_variance + 1 - now
        noise = math.sqrt(1 - now) * (current - math.sqrt(now) * target_mean) / variance_now
        # The variance of x_before given x_now, from their joint Gaussian, as a place between the two bounds.
        variance_before = before * target_variance + 1 - before
        conditional = variance_before - (now / before) * variance_before**2 / variance_now
        smallest, largest = process.posterior_log_variance[i].item(), process.betas[i].log().item()
        share = (math.log(conditional) - smallest) / (largest - smallest) if i else 0.0
        return torch.cat([noise, torch.full_like(noise, 2 * share - 1)], -1)

    unit_noise = torch.cat([torch.zeros(steps, 1, dtype=torch.float64), torch.eye(steps, dtype=torch.float64)], 1)
    rows = process.sample(exact, unit_noise[:, :, None]).flatten()
    mean, coefficients = rows[0], rows[1:] - rows[0]
    assert mean.item() == pytest.approx(target_mean, abs=1e-3)
    # The last denoising adds no noise: what it leaves out is at most the first timestep's beta, 4e-5.
    assert coefficients.square().sum().item() == pytest.approx(target_variance, abs=1e-4)


@given(kept=kept_timesteps, scale=st.floats(0.1, 50))
def test_within_a_limit_no_sample_leaves_it_however_wrong_the_denoiser(kept: Tensor, scale: float) -> None:
    process = GaussianDiffusion(cosine_betas(), kept, limit=0.7)
    noise = torch.randn(len(kept), 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = process.sample(lambda x, t: torch.cat([torch.sin(scale * x), x * 0], -1), noise)
    assert samples.abs().max() <= 0.7 + 1e-9


@given(start=st.floats(-0.9, 0.9), noise=values, t=st.integers(0, 999))
def test_a_limit_leaves_predictions_inside_it_alone(start: float, noise: float, t: int) -> None:
    limited, index = GaussianDiffusion(cosine_betas(), limit=1.0), torch.tensor([t])
    current = WHOLE.add_noise(column(start), index, column(noise))
    output = torch.cat([column(noise), column(0)], -1)
    assert torch.equal(limited.predict(output, current, index)[0], WHOLE.predict(output, current, index)[0])


def test_each_noise_is_added_after_its_denoising() -> None:
    process, seen = GaussianDiffusion(cosine_betas(), evenly_spaced(1000, 4)), []

    def denoiser(current: Tensor, timestep: Tensor) -> Tensor:
        seen.append(current.flatten())
        return torch.cat([current * 0, current * 0], -1)

    process.sample(denoiser, torch.eye(4, dtype=torch.float64)[:, :, None])
    assert [(current != 0).tolist() for current in seen] == [[row <= call for row in range(4)] for call in range(4)]


def test_temperature_scales_every_noise_but_the_first() -> None:
    process = GaussianDiffusion(cosine_betas(), evenly_spaced(1000, 4))
    unit_noise = torch.cat([torch.zeros(4, 1, dtype=torch.float64), torch.eye(4, dtype=torch.float64)], 1)[:, :, None]

    def coefficients(temperature: float) -> Tensor:
        rows = process.sample(lambda x, t: torch.cat([x, x * 0], -1), unit_noise, temperature).flatten()
        return rows[1:] - rows[0]

    whole, half = coefficients(1.0), coefficients(0.5)
    torch.testing.assert_close(half, whole * torch.tensor([1.0, 0.5, 0.5, 0.5], dtype=torch.float64))
    assert (whole[1:] != 0).all()
