"""What a step of the training sees, made without waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import TrainingError
from .corpus import Corpus
from .masking import random_mask, stratified_counts
from .recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Windows ``ids [B, N]`` of a text and which of their pieces are masked, ``mask [B, N]``, ``masked`` in all.

    The host knows their number, or it would have to wait until the device has counted them.
    """

    ids: Tensor
    mask: Tensor
    masked: int

    def places(self) -> Tensor:
        """Where the masked pieces are in the flattened windows, ascending: ``[masked]``."""
        return torch.nonzero_static(self.mask.flatten(), size=self.masked)[:, 0]


def draw_batch(corpus: Corpus, recipe: Recipe, step: int) -> Batch:
    """What ``step`` is trained on, the same whenever it is asked.

    Each window begins with a line. LLaDA draws a ratio and masks each piece with that chance; here, as in its
    estimate of the likelihood, which has the same mean and less variance, the number of masked pieces is drawn, from
    1..N, and spread evenly over the batch.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    length = recipe.lengths[int(torch.randint(len(recipe.lengths), (), generator=generator))]
    starts = corpus.starts_of(length)
    if not len(starts):
        raise TrainingError(f"the text has {len(corpus.pieces)} pieces, too few for windows of {length}")
    rows = max(1, recipe.batch // length)
    chosen = starts[torch.randint(len(starts), (rows,), generator=generator)]
    counts = stratified_counts(rows, length, generator)
    # The places take a number for each piece, too many to draw on the host.
    seed = int(torch.randint(2**62, (), generator=generator))
    on_device = torch.Generator(corpus.pieces.device).manual_seed(seed)
    return Batch(corpus.windows(chosen, length), random_mask(counts, length, on_device), int(counts.sum()))
