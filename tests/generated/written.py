"""What steps write into their arguments."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def indexed(tokens: Tensor) -> None:
    tokens[tokens > 2] = 2


def moved(tokens: Tensor) -> None:
    tokens[:, 1:] = tokens[:, :-1].clone()


WRITES: dict[str, Callable[[Tensor], object]] = {
    "filled": lambda tokens: tokens.masked_fill_(tokens > 1, 1),
    "indexed": indexed,
    "moved": moved,
    "in a view": lambda tokens: tokens[:, -1].clamp_(max=1),
}
"""Of all samples' tokens ``[B, ..]``, into these."""
