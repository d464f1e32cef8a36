"""Whether what a policy answers can be done."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..errors import PolicyError
from .history import History, Refresh


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
    count, priority = refresh.count, refresh.priority
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise PolicyError(f"{name} must count the tokens to refresh as an int that is not negative, got {count!r}")
    if priority is None:
        if 0 < count < history.tokens:
            raise PolicyError(f"{name} refreshes {count} of {history.tokens} tokens and must give a priority to choose")
        return refresh
    shape, device = (history.samples, history.tokens), history.age.device
    if not isinstance(priority, Tensor) or tuple(priority.shape) != shape or priority.is_complex():
        got = tuple(priority.shape) if isinstance(priority, Tensor) else type(priority).__name__
        raise PolicyError(f"{name} must give a priority of shape {shape}, one number for each token, got {got}")
    if priority.device != device:
        raise PolicyError(f"{name} gave a priority on {priority.device}, and the tokens are on {device}")
    return replace(refresh, by_policy=(*refresh.by_policy, (name, priority)))
