"""Gaussian diffusion of one token: the noise schedule, its respacing, the training loss and the sampler.

Source: Ho et al. 2020 (arXiv 2006.11239) for the process; Nichol and Dhariwal 2021 (arXiv 2102.09672) for the cosine
schedule, the learned variance and the hybrid loss. MAR (arXiv 2406.11838, section 3) applies it to every token.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``(x [R, C], t [R]) -> [R, 2C]``: predicted noise, then where the log-variance lies between its bounds (-1..1)."""


def cosine_betas(steps: int = 1000, largest: float = 0.999) -> Tensor:
    """Noise added at each of ``steps`` steps: ``[steps]`` float64 (arXiv 2102.09672, equation 17)."""
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    signal = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - signal[1:] / signal[:-1]).clamp(max=largest)


class GaussianDiffusion:
    """Noising, denoising and the loss, at those timesteps of a schedule that are kept.

    The betas between two kept timesteps merge into one, so that the signal left at each kept timestep is the same as in
    the whole schedule.

    Args:
        betas: ``[S0]`` float64, the schedule that the denoiser is trained with.
        kept: ``[S]`` int64, ascending timesteps to visit; all when omitted.
        limit: where it is known that values lie in ``-limit .. limit``, predictions of the start are clipped to that.
            The first denoising steps divide by almost no signal, so a small error would throw a sample far off.
    """

    def __init__(self, betas: Tensor, kept: Tensor | None = None, limit: float | None = None) -> None:
        self.schedule = betas
        self.limit = limit
        self.timesteps = torch.arange(len(betas)) if kept is None else kept
        self.signal = torch.cumprod(1 - betas, 0)[self.timesteps]
        signal_before = torch.cat([self.signal.new_ones(1), self.signal[:-1]])
        self.betas = 1 - self.signal / signal_before
        self.posterior_variance = self.betas * (1 - signal_before) / (1 - self.signal)
        # The last denoising step has no variance; its logarithm is clipped to that of the step before.
        self.posterior_log_variance = torch.cat([self.posterior_variance[1:2], self.posterior_variance[1:]]).log()
        self.weight_of_start = self.betas * signal_before.sqrt() / (1 - self.signal)
        self.weight_of_current = (1 - signal_before) * (1 - self.betas).sqrt() / (1 - self.signal)

    def __len__(self) -> int:
        return len(self.timesteps)

    def respaced(self, kept: Tensor) -> GaussianDiffusion:
        """The same at other timesteps ``kept`` ``[S]`` of the schedule."""
        return GaussianDiffusion(self.schedule, kept, self.limit)

    def add_noise(self, start: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """``start`` and ``noise`` ``[R, C]`` mixed as at kept timestep ``index`` ``[R]`` (arXiv 2006.11239, eq. 4)."""
        signal = at(self.signal, index, start)
        return signal.sqrt() * start + (1 - signal).sqrt() * noise

    def posterior_mean(self, start: Tensor, current: Tensor, index: Tensor) -> Tensor:
        """Mean of the previous, less noisy value given both ends, ``[R, C]`` (arXiv 2006.11239, equation 7)."""
        return at(self.weight_of_start, index, start) * start + at(self.weight_of_current, index, start) * current

    def predict(self, output: Tensor, current: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance ``[R, C]`` of the previous value, from the denoiser's output ``[R, 2C]``."""
        noise, position = output.chunk(2, dim=-1)
        share = (position + 1) / 2
        largest, smallest = at(self.betas.log(), index, current), at(self.posterior_log_variance, index, current)
        log_variance = share * largest + (1 - share) * smallest
        return self.posterior_mean(self.start(noise, current, index), current, index), log_variance

    def start(self, noise: Tensor, current: Tensor, index: Tensor) -> Tensor:
        """Where ``current`` comes from if it holds ``noise``, both ``[R, C]``: within the limit, ``[R, C]``."""
        signal = at(self.signal, index, current)
        start = (current - (1 - signal).sqrt() * noise) / signal.sqrt()
        return start if self.limit is None else start.clamp(-self.limit, self.limit)

    def loss(self, denoiser: Denoiser, start: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """Hybrid loss per row, ``[R]``: squared error of the noise, and the variational bound for the variance only."""
        current = self.add_noise(start, index, noise)
        output = denoiser(current, self.timesteps.to(index.device, non_blocking=True)[index])
        predicted, position = output.chunk(2, dim=-1)
        # The bound trains the variance alone: the mean enters without its gradient.
        mean, log_variance = self.predict(torch.cat([predicted.detach(), position], -1), current, index)
        target_mean = self.posterior_mean(start, current, index)
        target_log_variance = at(self.posterior_log_variance, index, start)
        divergence = gaussian_divergence(target_mean, target_log_variance, mean, log_variance)
        likelihood = -discrete_gaussian_log_likelihood(start, mean, 0.5 * log_variance)
        bound = torch.where(index[:, None] == 0, likelihood, divergence) / math.log(2)
        return ((predicted - noise) ** 2).mean(-1) + bound.mean(-1)

    def sample(self, denoiser: Denoiser, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Denoise from ``noise[0]``, adding ``noise[k]`` times ``temperature`` after the k-th denoising.

        Args:
            noise: ``[S, R, C]`` standard normal; ``S`` the number of kept timesteps. The last step adds none.

        Returns:
            ``[R, C]``.
        """
        current = noise[0]
        for index in reversed(range(len(self))):
            mean, deviation = self.denoise(denoiser, current, index)
            current = mean + deviation * noise[len(self) - index] * temperature if index > 0 else mean
        return current

    def denoise(self, denoiser: Denoiser, current: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[R, C]`` of the previous value, from ``current [R, C]`` at ``index``."""
        mean, log_variance = self.predict(self.output(denoiser, current, index), current, rows_of(index, current))
        return mean, (0.5 * log_variance).exp()

    def predict_start(self, denoiser: Denoiser, current: Tensor, index: int) -> Tensor:
        """The start ``[R, C]`` as it is predicted from ``current [R, C]`` at kept timestep ``index``."""
        noise, _ = self.output(denoiser, current, index).chunk(2, dim=-1)
        return self.start(noise, current, rows_of(index, current))

    def output(self, denoiser: Denoiser, current: Tensor, index: int) -> Tensor:
        """What the denoiser says ``[R, 2C]`` at kept timestep ``index``."""
        return denoiser(current, rows_of(int(self.timesteps[index]), current))


def rows_of(number: int, like: Tensor) -> Tensor:
    """``number`` for each row of ``like``: ``[R]``."""
    return torch.full((len(like),), number, device=like.device)


def at(table: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Rows of ``table`` ``[S]`` as a column ``[R, 1]`` of the kind of ``like``."""
    # Without waiting for the device, which would stand still a dozen times in every step of a training.
    return table.to(device=like.device, dtype=like.dtype, non_blocking=True)[index][:, None]


def gaussian_divergence(mean_a: Tensor, log_variance_a: Tensor, mean_b: Tensor, log_variance_b: Tensor) -> Tensor:
    """Kullback-Leibler divergence of Gaussian a from Gaussian b, elementwise, in nats."""
    spread = log_variance_b - log_variance_a + (log_variance_a - log_variance_b).exp()
    return 0.5 * (spread - 1 + (mean_a - mean_b) ** 2 * (-log_variance_b).exp())


def discrete_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor, width: float = 1 / 255) -> Tensor:
    """Log-probability, in nats, of the bin of half-width ``width`` around ``x``; the bins at -1 and 1 are open."""
    normal = torch.distributions.Normal(0.0, 1.0)
    above = normal.cdf((x + width - mean) * (-log_scale).exp())
    below = normal.cdf((x - width - mean) * (-log_scale).exp())
    above, below = torch.where(x > 0.999, 1.0, above), torch.where(x < -0.999, 0.0, below)
    return (above - below).clamp(min=1e-12).log()
