"""What an entry of the zoo is, and arguments that several models take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

VOCABULARY = 31
WIDTH = 16
TEXT = (11, WIDTH)
"""Sequence lengths: one is the width, one is not."""


@dataclass(frozen=True)
class Entry:
    """A model and what reading its code says about it.

    Attributes:
        arguments: for ``(samples, tokens, generator)`` a step's arguments, all of them new.
        attention, mlps: sites on the token axis, all of which must be claimed.
        apart: module paths, with wildcards, of further sites, which are not on the token axis, and why not.
        full: operators that must run on all tokens. tokens: lengths of the arguments that the model takes.
        told: a part of what is warned of a loop that reads rows; empty where nothing is.
        share: what a step with one active token may take of the FLOPs of one with all.
        tolerance: relative; float32 inside a model that was converted to float64 is the reason for a larger one.
    """

    name: str
    build: Callable[[], nn.Module]
    arguments: Callable[[int, int, Generator], Arguments]
    attention: int
    mlps: int
    apart: dict[str, str] = field(default_factory=dict, hash=False)
    full: tuple[str, ...] = ()
    tokens: tuple[int, ...] = TEXT
    told: str = ""
    share: float = 0.2
    tolerance: float = 1e-10


@dataclass(frozen=True)
class Refused:
    """A model without attention, and what a useful message says: operator, module and source line (a pattern)."""

    name: str
    build: Callable[[], nn.Module]
    arguments: Callable[[int, int, Generator], Arguments]
    says: tuple[str, ...]


def floats(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def ids(samples: int, tokens: int, generator: Generator, count: int = VOCABULARY) -> Tensor:
    return torch.randint(count, (samples, tokens), generator=generator)


def padding(samples: int, tokens: int, generator: Generator) -> Tensor:
    """Bool ``[B, N]``, which tokens are no padding; the first is none."""
    return torch.rand(samples, tokens, generator=generator) > torch.linspace(0, 0.8, tokens)


def plain_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (ids(samples, tokens, generator),), {}
