"""Solvers of the probability flow: from noise to data, with no noise on the way.

Both are written for predictions of the start, ``[R, C]``, at the kept timesteps. ``signal [S]``, ascending timesteps,
is the share of signal in the variance; a value is ``sqrt(signal) * start + sqrt(1 - signal) * noise``. The coefficients
are numbers of the host. What is predicted at the first timestep is the result: as many evaluations as timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

PredictStart = Callable[[Tensor, int], Tensor]
"""``(x [R, C], index) -> [R, C]``: the start as it is predicted from a value at a kept timestep."""

Solver = Callable[[PredictStart, Sequence[float], Tensor], Tensor]

ANCESTRAL = "ancestral"
"""The sampler that the model has: it adds noise in each step."""


def ddim(predict_start: PredictStart, signal: Sequence[float], current: Tensor) -> Tensor:
    """DDIM (Song et al. 2021, arXiv 2010.02502, equation 12 with sigma 0), of order 1: ``[R, C]``."""
    for index in reversed(range(1, len(signal))):
        current = towards(predict_start(current, index), current, signal[index], signal[index - 1])
    return predict_start(current, 0)


def dpm_solver(predict_start: PredictStart, signal: Sequence[float], current: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2), of order 2: ``[R, C]``.

    A step of DDIM with the start extrapolated, along half the logarithm of signal over noise, to the middle of the step
    by the one predicted before.
    """
    before: Tensor | None = None
    for index in reversed(range(1, len(signal))):
        start = extrapolated = predict_start(current, index)
        if before is not None:
            ratio = step_length(signal, index) / step_length(signal, index + 1)
            extrapolated = start + ratio / 2 * (start - before)
        current = towards(extrapolated, current, signal[index], signal[index - 1])
        before = start
    return predict_start(current, 0)


SOLVERS: dict[str, Solver] = {"ddim": ddim, "dpm++2m": dpm_solver}
"""By name; none of them adds noise."""


def towards(start: Tensor, current: Tensor, now: float, after: float) -> Tensor:
    """The value where ``after`` is the signal, on the way to ``start`` with the noise that ``current`` holds."""
    kept = math.sqrt((1 - after) / (1 - now))
    return kept * current + (math.sqrt(after) - kept * math.sqrt(now)) * start


def step_length(signal: Sequence[float], index: int) -> float:
    """Of the step from kept timestep ``index`` to the one below it, in half the logarithm of signal over noise."""
    return half_log_ratio(signal[index - 1]) - half_log_ratio(signal[index])


def half_log_ratio(signal: float) -> float:
    return 0.5 * math.log(signal / (1 - signal))
