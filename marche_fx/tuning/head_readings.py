"""The tokens that a diffusion head draws: read from an exact generation, drawn again in other ways and compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..api.denoising import decoding_at
from ..marks import ATTRIBUTE

SAMPLE = "sample"
"""The method of a head that draws tokens: ``sample(z, temperature, cfg)``, as MAR's has it."""


@dataclass(frozen=True)
class Reading:
    """What a head was asked for in one decoding step.

    Attributes:
        z: ``[R, Z]``; with guidance the first half of the rows is conditional. step, of: which decoding step.
    """

    z: Tensor
    temperature: float
    cfg: float
    step: int
    of: int

    @property
    def is_guided(self) -> bool:
        return self.cfg != 1.0

    def tokens(self, count: int) -> Reading:
        """The same of ``count`` of its tokens, evenly spaced among them."""
        halves = self.z.chunk(2) if self.is_guided else (self.z,)
        picked = torch.linspace(0, len(halves[0]) - 1, min(count, len(halves[0]))).round().long().to(self.z.device)
        return Reading(torch.cat([half[picked] for half in halves]), self.temperature, self.cfg, self.step, self.of)

    def repeated(self, draws: int) -> Tensor:
        """``z`` for so many draws of each token: ``[draws * R, Z]``."""
        halves = self.z.chunk(2) if self.is_guided else (self.z,)
        return torch.cat([half.repeat(draws, 1) for half in halves])


def read_head(model: nn.Module, head: str, run: Callable[[], Any]) -> list[Reading]:
    """What the head of ``model`` is asked for while ``run()`` decodes with it."""
    calls: list[dict[str, Any]] = []
    with noted(getattr(model, head), calls):
        run()
    return [
        Reading(call["z"].detach().clone(), float(call["temperature"]), float(call["cfg"]), number, len(calls))
        for number, call in enumerate(calls)
    ]


@contextmanager
def noted(head: nn.Module, calls: list[dict[str, Any]]) -> Iterator[None]:
    """Inside, the arguments of every call of the head's `SAMPLE` go to ``calls``."""
    original = getattr(head, SAMPLE)
    signature = inspect.signature(original)

    def sample(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append(bound.arguments)
        return original(*args, **kwargs)

    vars(head)[SAMPLE] = sample
    try:
        yield
    finally:
        del vars(head)[SAMPLE]


def can_be_read(model: nn.Module, head: str) -> bool:
    """Whether the head draws by a method that is known."""
    method = getattr(getattr(model, head, None), SAMPLE, None)
    if method is None:
        return False
    return {"z", "temperature", "cfg"} <= set(inspect.signature(method).parameters)


@torch.no_grad()
def drawn(model: nn.Module, head: str, readings: Sequence[Reading], draws: int, seed: int) -> Tensor:
    """``[K, R, C]``: every token of the readings drawn ``K`` times by the head of a model, transformed or not."""
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for reading in readings:
            sample = getattr(getattr(model, head), SAMPLE)
            z = reading.repeated(draws)
            if hasattr(model, ATTRIBUTE):
                with decoding_at(model, reading.step, reading.of):
                    tokens = sample(z, temperature=reading.temperature, cfg=reading.cfg)
            else:
                tokens = sample(z, temperature=reading.temperature, cfg=reading.cfg)
            rows = len(z) // 2 if reading.is_guided else len(z)
            found.append(tokens[:rows].view(draws, rows // draws, -1))
    return torch.cat(found, 1)
