"""A judge of generated text that is not the model: interpolated Kneser-Ney n-grams, counted in seconds.

Source: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ArgumentError

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """The n-grams of one length: how often each occurs, and of each context how often it does and with how many pieces.

    An n-gram is one number, the digits of which in base V are its pieces; all arrays are sorted by it. All orders but
    the highest count before how many different pieces an n-gram occurs, not how often.
    """

    grams: Int64s
    counts: Int64s
    contexts: Int64s
    totals: Int64s
    followers: Int64s
    discount: float

    def refine(self, lower: Float64s, grams: Int64s, contexts: Int64s) -> Float64s:
        """Chances of the last pieces of ``grams`` of this order from those of the order below."""
        seen = looked_up(self.grams, self.counts, grams)
        totals = looked_up(self.contexts, self.totals, contexts)
        followers = looked_up(self.contexts, self.followers, contexts)
        kept = np.maximum(seen - self.discount, 0)
        return np.where(totals > 0, (kept + self.discount * followers * lower) / np.maximum(totals, 1), lower)


class Ngrams:
    """Chances of each piece given up to ``order - 1`` before it, learnt from the pieces ``[T]`` of a text."""

    def __init__(self, pieces: Tensor, vocabulary: int, order: int = 5) -> None:
        if order < 1 or vocabulary**order >= 2**63:
            raise ArgumentError(
                f"order {order} with {vocabulary} pieces: an n-gram has to fit into 63 bits, take a lower order"
            )
        if len(pieces) < order:
            raise ArgumentError(f"a text of {len(pieces)} pieces has no {order}-grams")
        self.vocabulary = vocabulary
        grams, counts = np.unique(joined(pieces.numpy(), order, vocabulary), return_counts=True)
        orders = [self.count(grams, counts)]
        for shorter in range(order - 1, 0, -1):
            grams, counts = np.unique(grams % vocabulary**shorter, return_counts=True)
            orders.append(self.count(grams, counts))
        self.orders = orders[::-1]

    def count(self, grams: Int64s, counts: Int64s) -> Order:
        contexts, begins, followers = np.unique(grams // self.vocabulary, return_index=True, return_counts=True)
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = once / (once + 2 * twice) if twice else 0.5
        return Order(grams, counts, contexts, np.add.reduceat(counts, begins), followers, float(discount))

    def nats(self, ids: Tensor) -> Tensor:
        """``-log p`` of each piece of ``ids [B, N]``, float64; the first ones of a row have less before them."""
        return torch.stack([torch.from_numpy(-np.log(self.chances(row))) for row in ids.cpu().numpy()])

    def chances(self, row: Int64s) -> Float64s:
        chances = np.full(len(row), 1 / self.vocabulary)
        for number, order in enumerate(self.orders, 1):
            if number <= len(row):
                grams = joined(row, number, self.vocabulary)
                chances[number - 1 :] = order.refine(chances[number - 1 :], grams, grams // self.vocabulary)
        return chances


def joined(pieces: Int64s, order: int, vocabulary: int) -> Int64s:
    """The n-grams of a text ``[T]`` as numbers: ``[T - order + 1]``."""
    total = len(pieces) - order + 1
    grams = np.zeros(total, np.int64)
    for begin in range(order):
        grams = grams * vocabulary + pieces[begin : begin + total]
    return grams


def looked_up(keys: Int64s, values: Int64s, wanted: Int64s) -> Int64s:
    """The value of each ``wanted`` key of sorted ``keys``, 0 where there is none."""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def distinct(ids: Tensor, order: int = 4) -> float:
    """Share of different ones among the n-grams of all rows of ``ids [B, N]``.

    The n-gram model likes text that repeats itself; this tells it.
    """
    grams = ids.unfold(1, order, 1).flatten(0, 1)
    return len(grams.unique(dim=0)) / len(grams)
