"""What becomes of a loop: decoded by the original and by the transformed model on the same tokens."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

import marche_fx
from marche_fx.lazy.tensor import resolved
from tests.loops.loops import Entry


@dataclass(frozen=True)
class Row:
    """Share of the rows computed, age of the oldest row read, what the user is told, drift of what is read."""

    rows: float
    oldest: int
    told: tuple[str, ...]
    drift: float

    @property
    def is_useless(self) -> bool:
        return self.rows >= 0.9

    @property
    def is_stale(self) -> bool:
        return self.oldest > 0


@torch.no_grad()
def decode(entry: Entry) -> Row:
    torch.manual_seed(0)
    model = entry.model().eval().requires_grad_(False)
    torch.manual_seed(1)
    exact = [read.clone().double() for read in entry.loop(model)]
    optimized = marche_fx.transform(model, compile=False, **entry.options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(1)
        with marche_fx.decoding(optimized):
            found = [resolved(read).clone().double() for read in entry.loop(optimized)]
    report = marche_fx.report(optimized).session
    told = tuple(str(own.message) for own in caught if issubclass(own.category, UserWarning))
    wrong = sum(
        float((own - other).nan_to_num(0, 0, 0).square().sum()) for own, other in zip(found, exact, strict=True)
    )
    whole = sum(float(other.nan_to_num(0, 0, 0).square().sum()) for other in exact)
    rows = 1.0 if report is None else report.rows_ratio
    oldest = 0 if report is None else max((age for own in report.causes for _, _, age in own.reads), default=0)
    return Row(rows, oldest, told, (wrong / whole) ** 0.5)
