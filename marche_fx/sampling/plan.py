"""What a run makes, checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .formats import Format, format_of
from .labels import Labels, classes_of, labels_of
from .share import Share

Generate = Callable[[Any, Share], Tensor]
"""``(model, share) -> images [B, ...]``."""

Features = Callable[[Tensor], Tensor]
"""``images [B, ...] -> [B, D]``."""


@dataclass(frozen=True)
class Plan:
    """What to make, checked.

    Attributes:
        labels: int64 ``[shares * batch]``, or None.
    """

    count: int
    batch: int
    seed: int
    labels: Tensor | None
    format: Format
    raw: bool
    features: Features | None
    device: torch.device

    @property
    def shares(self) -> int:
        return -(-self.count // self.batch)

    def share(self, index: int) -> Share:
        """A whole one, even where fewer images are left: as many at once as in all others."""
        numbers = range(index * self.batch, (index + 1) * self.batch)
        own = None if self.labels is None else self.labels[numbers.start : numbers.stop].to(self.device)
        return Share(numbers, own, self.seed, self.device)

    def kept(self, share: Share) -> range:
        """The images of a share that the run wants."""
        return range(share.numbers.start, min(share.numbers.stop, self.count))


def checked_plan(
    model: nn.Module,
    generate: Generate,
    count: int,
    *,
    batch: int,
    labels: Labels,
    classes: int | None,
    seed: int,
    format: str,
    raw: bool,
    features: Features | None,
    reference: tuple[Tensor, Tensor] | None,
    adm: bool,
) -> Plan:
    """What was asked for, where it can be done; nothing is written before."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"sample takes a torch.nn.Module, got {type(model).__name__}")
    if model.training:
        raise ArgumentError(f"{type(model).__name__} is in training mode; call model.eval() before sample")
    for name, function in (("generate", generate), ("features", features)):
        if not callable(function) and (function is not None or name == "generate"):
            raise ArgumentError(f"{name} must be a function, got {function!r}")
    for name, value, least in (("count", count, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise ArgumentError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if features is None and reference is not None:
        raise ArgumentError("reference is the statistics of features: pass features= too")
    if features is not None and count < 2:
        raise ArgumentError("one image has no covariance of features: sample at least 2, or without features")
    if adm and raw:
        raise ArgumentError("adm writes pictures, and raw=True keeps what is none: leave out one of them")
    total = -(-count // batch) * batch
    table = labels_of(labels, count, total, classes_of(model, classes))
    weight = next(model.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device
    return Plan(count, batch, seed, table, format_of(format, raw=raw), raw, features, device)
