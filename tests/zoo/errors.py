"""How far a generation is from the original, and from the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx.ops import join_positions

from .captured import Captured, tensors


def relative_error(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """The largest difference over the largest value, of the worst result; infinite where kinds or shapes differ."""
    worst = 0.0
    for own, other in zip(found, expected, strict=True):
        if not isinstance(other, Tensor):
            assert own == other
            continue
        if own.shape != other.shape or own.dtype != other.dtype:
            return float("inf")
        error = (own.double() - other.double()).abs().max() / other.double().abs().max()
        worst = max(worst, float(error.nan_to_num(nan=float("inf"))))
    return worst


@torch.no_grad()
def error_at_full_refresh(own: Captured) -> float:
    """Of the transformed model in one generation, every step with new arguments."""
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    with marche_fx.decoding(own.optimized):
        for _ in range(3):
            args, kwargs = arguments = own.arguments(generator)
            found = pytree.tree_map_only(Tensor, torch.clone, own.optimized(*args, **kwargs))
            worst = max(worst, relative_error(pytree.tree_leaves(found), own.exact(arguments)))
    return worst


def active_sets(samples: int, lengths: Sequence[int], generator: Generator) -> Iterator[list[Tensor]]:
    """Of one generation, ``[B, A]`` for each stream: all rows, others in each sample, one row, the same, all rows."""
    orders = [torch.rand(samples, length, generator=generator).argsort(-1) for length in lengths]
    for chosen in (slice(None), slice(3), slice(-1, None), slice(-1, None), slice(2, 7), slice(None)):
        yield [order[:, chosen] for order in orders]


@torch.no_grad()
def errors_against_oracle(own: Captured) -> tuple[float, float]:
    """Of a generation with new arguments in every step; and against the original where all rows are active."""
    own.program.reset()
    oracle, generator = own.oracle(), torch.Generator().manual_seed(2)
    worst = at_all_rows = 0.0
    for active in active_sets(own.program.plan.samples, own.lengths, generator):
        arguments = own.arguments(generator)
        found = own.step(arguments, active)
        expected = oracle.step(tensors(arguments), join_positions(active, own.lengths))
        worst = max(worst, relative_error(found, expected))
        if all(positions.shape[1] == length for positions, length in zip(active, own.lengths)):
            at_all_rows = max(at_all_rows, relative_error(found, own.exact(arguments)))
    return worst, at_all_rows
