"""What a way costs: FLOPs and seconds of a whole generation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..generation import Models
from ..points import Point

aten = torch.ops.aten


def linear_flops(x: Tensor, weight: Tensor, *_: Any) -> int:
    """``x [.., C]``, ``weight [O, C]``."""
    return 2 * x.numel() * len(weight)


def attention_flops(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> int:
    """``q [.., L, D]``, ``k [.., S, D]``, ``v [.., S, E]``."""
    return 2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


WHOLE: dict[Any, Callable[..., int]] = {
    aten.linear.default: linear_flops,
    aten.scaled_dot_product_attention.default: attention_flops,
}
"""Operators that are counted as they are, though they are made of others."""

PRODUCTS = (aten.matmul.default, aten.einsum.default)
"""Operators of whose parts FLOPs are counted."""


class CountedFlops(TorchDispatchMode):
    """Counts those of products and attention inside, of any model, whatever module they are in.

    `torch.utils.flop_counter.FlopCounterMode` hooks into modules, which inference mode does not bear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WHOLE:
            self.total += WHOLE[func](*args)
            return func(*args, **kwargs)
        if func in PRODUCTS:
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        return result


def whole_flops(models: Models, way: Point, images: int = 2) -> float:
    """FLOPs of an image, of all it takes: transformer, head and what is around them."""
    draws = models.draws(way, 0).first(images)
    models.generate(way, draws)  # What is captured is not counted.
    with CountedFlops() as counted:
        models.generate(way, draws)
    return counted.total / len(draws.labels)


@dataclass(frozen=True)
class Times:
    """Seconds of whole generations that took turns in one process.

    Attributes:
        batch: images at once. seconds: by way, of each turn.
    """

    batch: int
    seconds: dict[str, list[float]]

    def over(self, first: str) -> dict[str, float]:
        """Of each way the median over turns of its time over that of ``first`` in the same turn."""
        own = self.seconds[first]
        return {
            way: statistics.median(mine / other for mine, other in zip(taken, own, strict=True))
            for way, taken in self.seconds.items()
        }


def timed(models: Models, ways: Sequence[Point], batch: int, turns: int) -> Times:
    """Every way once in each turn, after a generation of each that is not timed."""
    seconds: dict[str, list[float]] = {way.spec: [] for way in ways}
    for turn in range(turns + 1):
        for way in ways:
            taken = models.generate(way, models.draws(way, 0).first(batch)).seconds
            if turn:
                seconds[way.spec].append(taken)
    return Times(batch, seconds)
