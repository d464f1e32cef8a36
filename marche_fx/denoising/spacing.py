"""Which timesteps of a noise schedule are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import ArgumentError

LEAST_SIGNAL = 0.0057
"""Share of signal in the variance, below which a solver without noise does not start: it divides by its root. It is a
logarithm of signal over noise of -5.1, where eMIGM (arXiv 2503.07197) starts too."""


def even(signal: Tensor, count: int, last: int) -> list[int]:
    return [round(place * last / (count - 1)) for place in range(count)]


def quadratic(signal: Tensor, count: int, last: int) -> list[int]:
    return [round(last * (place / (count - 1)) ** 2) for place in range(count)]


def logsnr(signal: Tensor, count: int, last: int) -> list[int]:
    ratio = (signal / (1 - signal)).log()[: last + 1]
    wanted = torch.linspace(float(ratio[0]), float(ratio[last]), count, dtype=ratio.dtype)
    return [int((ratio - own).abs().argmin()) for own in wanted]


SPACINGS: dict[str, Callable[[Tensor, int, int], list[int]]] = {"even": even, "quadratic": quadratic, "logsnr": logsnr}
"""By name, ``count`` of the timesteps ``0 .. last`` of a schedule that leaves ``signal [S]``; two may be the same."""


def kept_timesteps(signal: Tensor, count: int, spacing: str, last: int) -> list[int]:
    """``count`` different timesteps of ``0 .. last``, ascending, both ends included.

    Args:
        signal: ``[S]`` float64, share of signal in the variance at each timestep of the schedule.

    Raises:
        ArgumentError: ``last`` is no timestep of the schedule, or there are not so many.
    """
    if not 0 < last < len(signal):
        raise ArgumentError(f"clip must be a timestep of the schedule, 1..{len(signal) - 1}, got {last}")
    if not 2 <= count <= last + 1:
        raise ArgumentError(f"the number of denoising steps must lie in 2..{last + 1}, got {count}")
    return apart(SPACINGS[spacing](signal, count, last), last)


def apart(places: Sequence[int], last: int) -> list[int]:
    """Ascending numbers in ``0 .. last``, of which equal ones are moved apart as little as that takes."""
    found: list[int] = []
    for place in places:
        found.append(max(place, found[-1] + 1) if found else place)
    return [min(place, last - left) for place, left in zip(found, reversed(range(len(found))), strict=True)]


def last_with_signal(signal: Tensor) -> int:
    """The last timestep at which a solver without noise can start."""
    return int((signal >= LEAST_SIGNAL).nonzero().max())


def evenly_spaced(steps: int, count: int) -> Tensor:
    """``count`` of the timesteps ``0 .. steps - 1``, both ends included, as even as rounding allows: ``[count]``."""
    if not 2 <= count <= steps:
        raise ArgumentError(f"the number of denoising steps must lie in 2..{steps}, got {count}")
    return torch.tensor(even(torch.empty(0), count, steps - 1))


def chosen_draws(timesteps: Sequence[int], given: int, schedule: int) -> list[int]:
    """Which of ``given`` draws, made for evenly spaced timesteps, each of some other ``timesteps`` takes.

    The start takes the first draw, so that runs with other timesteps start from the same noise; a later step takes that
    of the nearest timestep, and no two take the same.

    Args:
        timesteps: ``S`` ascending ones of a ``schedule`` of so many, at which the denoising arrives.

    Returns:
        ``S`` numbers of draws, for the last timestep first: draws are numbered in the order in which they are used.

    Raises:
        ArgumentError: there are fewer draws than timesteps.
    """
    if given < len(timesteps):
        raise ArgumentError(
            f"the noise holds {given} draws of each token, and {len(timesteps)} denoising steps need as many"
        )
    nearest = [round(own * (given - 1) / (schedule - 1)) for own in timesteps[:-1]]
    return [given - 1 - own for own in reversed(apart([*nearest, given - 1], given - 1))]
