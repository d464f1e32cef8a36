"""Denoisers as heads of transformed models, and what they are called with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import marche_fx
from marche_fx import HeadReuse
from tests.head.denoisers import Denoiser, Model

TIMES = tuple(range(990, 90, -90))


def model_of(kind: str, seed: int = 0, **sizes: int) -> Any:
    torch.manual_seed(seed)
    return Model(Denoiser(kind, **sizes).double()).eval()


def arguments(rows: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    return x, torch.randn(rows, 5, dtype=torch.float64, generator=generator)


def head_of(optimized: Any, method: str = "forward") -> Any:
    return optimized._marche_fx.heads[f"net.{method}"]


def transformed(model: Any, reuse: HeadReuse | str, method: str = "forward") -> Any:
    return marche_fx.transform(model, inner=f"net.{method}", reuse=reuse, compile=False)


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def three(rows: int, times: tuple[int, ...], seed: int) -> tuple[Tensor, tuple[int, ...], Tensor]:
    x, c = arguments(rows, seed)
    return x, times, c
