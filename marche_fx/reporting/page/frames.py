"""What the page's figure shows: of each stream and step method, step by step, which tokens were computed and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...runtime.records import REASONS
from ..step_choices import LETTERS, StepChoices

SPARED = "s"
"""A token that was read and left as it was, beside `LETTERS`."""

MANY = 20_000
"""Of so many refreshed tokens of a call no scores are told one by one."""


def panels_of(choices: Sequence[StepChoices]) -> list[dict[str, Any]]:
    """A panel for each stream, step method and number of tokens, in the order in which they were first called."""
    panels: dict[tuple[Any, ...], list[StepChoices]] = {}
    for own in choices:
        panels.setdefault((own.stream, own.method, *own.reasons.shape), []).append(own)
    return [panel(own) for own in panels.values()]


def panel(choices: Sequence[StepChoices]) -> dict[str, Any]:
    """Calls of one step method in one stream, all of as many tokens."""
    first = choices[0]
    samples, tokens = first.reasons.shape
    calls: dict[int, list[StepChoices]] = {}
    for own in choices:
        calls.setdefault(own.decoding_step, []).append(own)
    square = None if first.square is None else {"first": first.square[0], "side": math.isqrt(first.square[1])}
    return {
        "frames": [frame(step, own) for step, own in calls.items()],
        "method": first.method,
        "samples": samples,
        "square": square,
        "stream": first.stream,
        "tokens": tokens,
    }


def frame(step: int, choices: Sequence[StepChoices]) -> dict[str, Any]:
    """One call, of which more may have been computed later."""
    last = choices[-1]
    drifts = [own.drift for own in choices if own.drift is not None]
    return {
        "active": max(own.active for own in choices),
        "drift": drifts[-1] if drifts and math.isfinite(drifts[-1]) else None,
        "flops": sum(own.flops_ratio for own in choices),
        "letters": letters(choices),
        "lines": list(last.lines),
        "moved": [[name, [positions(own) for own in tokens]] for name, tokens in last.moved.items() if tokens.any()],
        "scores": scores(choices),
        "step": step,
        "visible": last.visible,
    }


def letters(choices: Sequence[StepChoices]) -> list[str]:
    """For each sample a letter for each token: of `LETTERS`, or `SPARED`."""
    reasons = choices[0].reasons
    for own in choices[1:]:
        # What was computed first was computed for that reason.
        reasons = torch.where(reasons > 0, reasons, own.reasons)
    spared = [own.spared for own in choices if own.spared is not None]
    if spared:
        is_spared = torch.stack(spared).any(0) & (reasons == 0)
        reasons = torch.where(is_spared, len(REASONS), reasons)
    return ["".join((LETTERS + SPARED)[own] for own in sample) for sample in reasons.tolist()]


def scores(choices: Sequence[StepChoices]) -> list[list[list[float]]] | None:
    """For each sample ``[token, score]`` of the refreshed ones, highest first; None where no score chose them."""
    chosen = next((own for own in choices if own.score is not None), None)
    if chosen is None or chosen.score is None:
        return None
    refreshed = chosen.reasons == REASONS.index("refreshed")
    if refreshed.sum() > MANY:
        return None
    found = []
    for own, score in zip(refreshed, chosen.score, strict=True):
        places = own.nonzero()[:, 0]
        ranked = sorted(zip(score[places].tolist(), places.tolist()), key=lambda pair: (-pair[0], pair[1]))
        found.append([[place, float(f"{value:.4g}")] for value, place in ranked if math.isfinite(value)])
    return found


def positions(tokens: Tensor) -> list[int] | bool:
    """The positions of ``tokens``, bool ``[N]``; True for all."""
    return True if bool(tokens.all()) else tokens.nonzero()[:, 0].tolist()
