"""What is warned of a session, for tests of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import marche_fx
from marche_fx.lazy.tensor import resolved
from tests.loops import models
from tests.loops.loops import reveal, words

MASK = models.MASK


def made(kind: Callable[[], nn.Module] = models.Words) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


@torch.no_grad()
def told(
    model: nn.Module, step: Callable[[Any, Tensor, int], Any], steps: int = 12, *, prompt: int = 8, **options: Any
) -> list[str]:
    """What is warned of a session."""
    optimized, ids = marche_fx.transform(model, compile=False, **options), words()
    ids[:, :prompt] = 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with marche_fx.decoding(optimized):
            for number in range(steps):
                resolved(step(optimized, ids, number))
                ids = reveal(ids, number)
    return [str(own.message) for own in caught if issubclass(own.category, UserWarning)]


def far(model: Any, ids: Tensor, number: int) -> Tensor:
    return model(ids, torch.full((2,), 10.0 * number))[:, 8:12] + 0


def most_anew(model: Any, ids: Tensor, number: int) -> Tensor:
    """Seven of eight words are others in every call."""
    return model(torch.where(torch.arange(ids.shape[1]) % 8 == 0, ids, (ids + number) % models.WORDS))[:, 8:12] + 0
