"""Sessions of a tiny model, shapes and policies varying: whether anything grows, see `scripts/soak.py`."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ..api.decoding import decoding
from ..api.optimization import optimization_of
from ..api.transform import transform
from ..refresh import DriftRefresh, RandomRefresh, RefreshPolicy, SelectiveRefresh, StalenessRefresh
from .resident import return_free_memory, status_kib

WIDTH, HEADS, STEPS, READ = 16, 2, 4, 2
MOST = 8
"""Captures that are kept of each model."""

RARE = 16
"""Numbers of tokens that are rare."""

Shape = tuple[int, int]
SHAPES: list[Shape] = [(samples, tokens) for samples in (1, 2) for tokens in (16, 24, 40)]
POLICIES: tuple[RefreshPolicy, ...] = (
    SelectiveRefresh(0.2, warmup=1),
    DriftRefresh(0.2, warmup=1),
    StalenessRefresh(0.2, warmup=1) + RandomRefresh(0.1, warmup=1),
)


class Tiny(nn.Module):
    """One layer of attention and an MLP, for any number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (own.unflatten(-1, (HEADS, -1)).transpose(1, 2) for own in self.qkv(x).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(x)))


@dataclass(frozen=True)
class Reading:
    """What there was after so many sessions, and what one of those since the last reading took.

    Attributes:
        captures: that are kept. dropped: those that were, and are no more.
    """

    sessions: int
    resident_mib: float
    tensors: int
    threads: int
    descriptors: int
    captures: int
    dropped: int
    operators: float
    microseconds: float


class Operators(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def session(optimized: Any, shape: tuple[int, int], number: int) -> None:
    """One of some samples and tokens; a token changes in each step, and two rows are read."""
    samples, tokens = shape
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(samples, tokens, WIDTH, generator=generator)
    with decoding(optimized):
        for step in range(STEPS):
            optimized(x)[:, step : step + READ].sum().item()
            x = x.clone()
            x[:, step] = torch.randn(WIDTH, generator=generator)


def soak(
    sessions: int,
    every: int,
    shapes: Sequence[Shape] = SHAPES,
    policies: Sequence[RefreshPolicy] = POLICIES,
    rare: int | None = None,
) -> Iterator[Reading]:
    """A reading after every so many sessions.

    Args:
        rare: each time after so many sessions, one is of a number of tokens of which there are more than captures are
            kept, so that some are dropped and made again.
    """
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    models = [transform(Tiny().eval(), refresh=own, compile=False, max_captures=MOST) for own in policies]
    operators, kinds, began = 0, len(shapes) * len(policies), time.process_time()
    for number in range(sessions):
        optimized, shape = models[number // len(shapes) % len(models)], shapes[number % len(shapes)]
        if rare is not None and (number + 1) % rare == 0:
            shape = 1, max(tokens for _, tokens in shapes) + 1 + (number + 1) // rare % RARE
        if number % every < kinds:
            with Operators() as counted:
                session(optimized, shape, number)
            operators += counted.count
        else:
            session(optimized, shape, number)
        if (number + 1) % every == 0:
            took = (time.process_time() - began) / every
            yield reading(number + 1, models, operators / kinds, took * 1e6)
            operators, began = 0, time.process_time()


def reading(sessions: int, models: list[Any], operators: float, microseconds: float) -> Reading:
    gc.collect()
    return_free_memory()
    programs = [step.programs for own in models for step in optimization_of(own).steps.values()]
    return Reading(
        sessions,
        status_kib("VmRSS") / 1024,
        sum(isinstance(own, Tensor) for own in gc.get_objects()),
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        sum(len(own) for own in programs),
        sum(own.dropped for own in programs),
        operators,
        microseconds,
    )
