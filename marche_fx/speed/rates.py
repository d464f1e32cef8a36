"""How fast this machine computes, measured within a few seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..passes.lower import products
from .clock import clock_for, timings

ROWS = (1, 4, 16, 64, 256, 1024)
"""Of a product, at which it is measured."""

WIDTHS = (128, 768)
"""Channels that go in; four times as many come out, as in an MLP."""

BYTES = 2**27
"""Weights in turn take so much, and so do keys and values, that none come from a cache of the processor, as in a
model."""

ENOUGH = 2e9
"""FLOPs that are timed at once, where the weights in turn are not more."""

QUERIES = (4, 16, 64, 256)
"""A sample's, at which attention to `KEYS` keys is measured."""

SAMPLES, HEADS, KEYS, CHANNELS = 4, 12, 256, 64

ELEMENTS = 2**20
CALLS = 100
REPEATS = 5


@dataclass(frozen=True)
class Curve:
    """FLOPs a second by the number of rows; between those measured the logarithms of both are interpolated."""

    rows: tuple[int, ...]
    rates: tuple[float, ...]

    def at(self, rows: float) -> float:
        return math.exp(np.interp(math.log(max(rows, 1.0)), np.log(self.rows), np.log(self.rates)))


@dataclass(frozen=True)
class Surface:
    """The same by the number of channels that go in, too."""

    widths: tuple[int, ...]
    curves: tuple[Curve, ...]

    def at(self, rows: float, width: float) -> float:
        rates = [curve.at(rows) for curve in self.curves]
        return math.exp(np.interp(math.log(width), np.log(self.widths), np.log(rates)))


@dataclass(frozen=True)
class Rates:
    """What a machine does.

    Attributes:
        products: of rows with weights. onednn: the same as compiled steps do it. attention: of a sample's queries.
        moved: elements a second of sums and the like. mapped: of functions such as GELU, and norms.
        call: seconds of a module's call on a few elements.
    """

    products: Surface
    onednn: Surface
    attention: Curve
    moved: float
    mapped: float
    call: float


def rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Those of a device, with this process's threads; measured once."""
    return measured_rates(device, dtype, torch.get_num_threads())


@cache
def measured_rates(device: torch.device, dtype: torch.dtype, threads: int) -> Rates:
    stopwatch = Stopwatch(device, dtype)
    x, few, norm = stopwatch.ones(ELEMENTS), stopwatch.ones(2, 8), nn.LayerNorm(8, device=device, dtype=dtype)
    with torch.no_grad():
        return Rates(
            products=stopwatch.products(F.linear),
            onednn=stopwatch.products(products.linear),
            attention=stopwatch.attention(),
            moved=ELEMENTS / stopwatch.seconds(lambda: x + x),
            mapped=ELEMENTS / stopwatch.seconds(lambda: F.gelu(x)),
            call=stopwatch.seconds(lambda: each(lambda _: norm(few), range(CALLS))) / CALLS,
        )


Item = TypeVar("Item")


def each(run: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call ``run`` for each; no result is kept, for a model does not need new memory for each either."""
    for item in items:
        run(item)


class Stopwatch:
    """Times operators of one dtype on one device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.clock = clock_for(device)

    def ones(self, *shape: int) -> Tensor:
        return torch.ones(shape, device=self.device, dtype=self.dtype)

    def products(self, linear: Callable[[Tensor, Tensor], Tensor]) -> Surface:
        return Surface(WIDTHS, tuple(self.products_of(linear, width) for width in WIDTHS))

    def products_of(self, linear: Callable[[Tensor, Tensor], Tensor], width: int) -> Curve:
        """Of rows with many weights in turn."""
        shape = 4 * width, width
        weights = [self.ones(*shape) for _ in range(BYTES // (math.prod(shape) * self.dtype.itemsize))]

        def rate(rows: int) -> float:
            x, flops = self.ones(rows, width), 2.0 * rows * math.prod(shape)
            own = weights[: max(math.ceil(ENOUGH / flops), 1)]
            return len(own) * flops / self.seconds(lambda: each(lambda weight: linear(x, weight), own))

        return Curve(ROWS, tuple(rate(rows) for rows in ROWS))

    def attention(self) -> Curve:
        """To many keys and values in turn."""
        shape = SAMPLES, HEADS, KEYS, CHANNELS
        cached = [self.ones(*shape) for _ in range(BYTES // (math.prod(shape) * self.dtype.itemsize))]
        pairs = list(zip(cached[::2], cached[1::2]))

        def rate(queries: int) -> float:
            q = cached[0][:, :, :queries].contiguous()
            flops = 4.0 * q.numel() * KEYS
            own = pairs[: max(math.ceil(ENOUGH / flops), 1)]
            attend = partial(F.scaled_dot_product_attention, q)
            return len(own) * flops / self.seconds(lambda: each(lambda pair: attend(*pair), own))

        return Curve(QUERIES, tuple(rate(queries) for queries in QUERIES))

    def seconds(self, run: Callable[[], object]) -> float:
        """The shortest of a few runs after a first one."""
        return min(timings(run, self.clock, REPEATS))
