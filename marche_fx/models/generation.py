"""Generate with the bundled MAR's own loop on draws made beforehand, so that runs differ in their model alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..reporting.report import report
from ..reporting.session_report import SessionReport
from . import MAR


@dataclass(frozen=True)
class Draws:
    """Every random choice of a generation.

    Attributes:
        labels: ``[B]``. orders: ``[B, N]``. noise: ``[B, N, S, C]``.
    """

    labels: Tensor
    orders: Tensor
    noise: Tensor

    def first(self, count: int) -> Draws:
        return Draws(self.labels[:count], self.orders[:count], self.noise[:count])


@dataclass(frozen=True)
class Sampling:
    """How `MAR.sample_tokens` decodes: its number of steps, guidance scale and temperature."""

    steps: int
    cfg: float
    temperature: float


@dataclass(frozen=True)
class Generation:
    """Images ``[B, c, H, W]`` of one run, or latents, and where its seconds went."""

    images: Tensor
    head_seconds: float
    transformer_seconds: float
    session: SessionReport | None = None

    @property
    def seconds(self) -> float:
        return self.head_seconds + self.transformer_seconds


def draw(mar: MAR, labels: Tensor, generator: torch.Generator) -> Draws:
    """Draws for images of these labels, made on the CPU wherever the model is.

    The noise is that of every token in every denoising step, however many tokens a decoding step draws, so that runs
    with other numbers of decoding steps share it too.
    """
    # As `MAR.sample_orders` does on the model's device.
    orders = torch.rand(len(labels), mar.seq_len, generator=generator).argsort(-1)
    shape = len(labels), mar.seq_len, len(mar.diffloss.gen_diffusion), mar.token_embed_dim
    noise = torch.randn(shape, generator=generator)
    device = mar.mask_token.device
    return Draws(labels.to(device), orders.to(device), noise.to(device))


def sample(model: nn.Module, draws: Draws, sampling: Sampling, *, progress: bool = False) -> Tensor:
    """Images by the loop of ``model``, a `MAR` or what `transform` made of one."""
    sample_tokens: Any = model.sample_tokens
    return sample_tokens(
        len(draws.labels),
        sampling.steps,
        sampling.cfg,
        labels=draws.labels,
        temperature=sampling.temperature,
        orders=draws.orders,
        noise=draws.noise,
        progress=progress,
    )


def generate(
    model: MAR, draws: Draws, sampling: Sampling, *, progress: bool = True, limit: float | None = 1.0
) -> Generation:
    """Run the model's own loop, and time its head apart.

    Args:
        limit: largest absolute value of what is drawn, that of pixels; None where latents are drawn.
    """
    with torch.inference_mode(), timed(model.diffloss, "sample") as head:
        started = time.perf_counter()
        images = sample(model, draws, sampling, progress=progress)
        total = time.perf_counter() - started
    session = report(model).session if hasattr(model, "_marche_fx") else None
    drawn = images if limit is None else images.clamp(-limit, limit)
    return Generation(drawn.clone(), sum(head), total - sum(head), session)


@contextmanager
def timed(module: nn.Module, name: str) -> Iterator[list[float]]:
    """The seconds of every call of a method of ``module`` while this is open."""
    # In the class: an attribute set on a module of the model would have its steps captured again.
    kind = type(module)
    method = vars(kind)[name]
    seconds: list[float] = []

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = method(self, *args, **kwargs)
        if self is module:
            seconds.append(time.perf_counter() - started)
        return result

    setattr(kind, name, call)
    try:
        yield seconds
    finally:
        setattr(kind, name, method)
