"""Whether decoding takes longer than the original would: of small models, calling takes longer than computing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..refresh import FullRefresh
from .method import StepMethod
from .program import Program
from .records import CallRecord

SHORT = 0.05
"""Seconds of an original's call up to which calling may be what a step takes; of longer ones nothing is told."""

FEWEST = 8
"""Timed calls of a session that say something."""

SLOWER = 1.25
"""So many times the original's time, and the user is told."""

CAUSES = {"a moving value", "length", "nearly all", "runs again"}
"""What a user was warned of that takes time too."""


def time_original(program: Program, device: torch.device, first: float, call: Callable[[], Any]) -> None:
    """Take the time of the original's call, which took ``first`` seconds the first time.

    Where that was short it is called again, since a first call loads and allocates what later ones find.
    """
    if device.type != "cpu" or first > SHORT:
        return
    began = time.perf_counter()
    call()
    program.original_seconds = min(first, time.perf_counter() - began)


def tell_of_lost_time(methods: Sequence[StepMethod], calls: Sequence[CallRecord]) -> None:
    """Warn once of a session whose steps took longer than the original's, as far as both are known."""
    methods = [method for method in methods if any(call.method is method for call in calls)]
    own, original, steps = 0.0, 0.0, 0
    for method in methods:
        timed = [call for call in calls if call.method is method and call.seconds]
        known = [call.program.original_seconds for call in timed if call.program.original_seconds is not None]
        is_told = bool(method.warned & CAUSES) or method.policy == FullRefresh()
        if is_told or not method.settings.compile or len(timed) < FEWEST or len(known) < len(timed):
            return
        # What is compiled on the way takes long in a few calls.
        own += statistics.median(call.seconds for call in timed) * len(timed)
        original += sum(known)
        steps = max(steps, len(timed))
    if not methods or own <= SLOWER * original:
        return
    names = " and ".join(map(str, methods))
    share = sum(call.computed for call in calls) / max(sum(call.visible for call in calls), 1)
    methods[-1].warn_once(
        f"a call of {names} took {1e3 * own / steps:.1f} ms, and the original's {1e3 * original / steps:.1f} ms: in so "
        "small a step, finding out what changed and calling operators take longer than is saved by computing "
        f"{share:.0%} of the rows. Here the original is faster; larger batches, more tokens and wider models gain",
        topic="lost time",
    )
