"""Whether what a policy answers can be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..checks import called
from ..errors import PolicyError
from .history import History, Refresh


def answer_of(policy: Any, history: History) -> Refresh:
    """What a policy chooses, if it can be done; raises as `checked` does."""
    return checked(policy, called(f"{type(policy).__name__}.choose", policy.choose, history), history)


def checked(policy: object, refresh: Refresh, history: History) -> Refresh:
    """A policy's answer, if it can be done, with its priority under the policy's name.

    Whether a priority holds NaN is known on the device alone: `choose_streams` asks, with what a step brings to the
    host anyway.

    Raises:
        PolicyError: it is no `Refresh`, or its count or priority has the wrong type, sign, shape or device.
    """
    name = type(policy).__name__
    if not isinstance(refresh, Refresh):
        raise PolicyError(f"{name}.choose must return a Refresh, got {type(refresh).__name__}")
    count, priority, queried = refresh.count, refresh.priority, refresh.queried
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise PolicyError(f"{name} must count the tokens to refresh as an int that is not negative, got {count!r}")
    if queried is not None and (not isinstance(queried, int) or isinstance(queried, bool) or queried < 0):
        raise PolicyError(
            f"{name} must count the queried tokens to compute as an int that is not negative, got {queried!r}"
        )
    if priority is None and 0 < count < history.tokens:
        raise PolicyError(f"{name} refreshes {count} of {history.tokens} tokens and must give a priority to choose")
    if queried is not None and priority is None and refresh.urgency is None:
        raise PolicyError(f"{name} computes {queried} of the queried tokens and must give an urgency to choose")
    given = {kind: own for kind in ("priority", "urgency") if (own := getattr(refresh, kind)) is not None}
    for kind, own in given.items():
        check_ranks(name, kind, own, history)
    return replace(refresh, by_policy=(*refresh.by_policy, *((name, own) for own in given.values())))


def check_ranks(policy: str, kind: str, given: object, history: History) -> None:
    """Raise unless ``given`` can rank the tokens."""
    shape, device = (history.samples, history.tokens), history.age.device
    if not isinstance(given, Tensor) or tuple(given.shape) != shape or given.is_complex():
        got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise PolicyError(f"{policy} must give its {kind} as {shape}, one number for each token, got {got}")
    if given.device != device:
        raise PolicyError(f"{policy} gave its {kind} on {given.device}, and the tokens are on {device}")
