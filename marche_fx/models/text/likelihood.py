"""How likely a masked-diffusion model finds a text: a bound, and each piece given all others."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..parallel_decoding import Denoiser
from .corpus import Corpus
from .masking import stratified_mask


@torch.no_grad()
def likelihood_bound(model: Denoiser, ids: Tensor, *, mask_id: int, draws: int = 16, seed: int = 0) -> Tensor:
    """An upper bound, in nats per piece, of ``-log p(ids)`` of each row: ``[B, N]`` to ``[B]`` float64.

    LLaDA's estimate: 1..N random pieces of a row are masked and predicted; the mean of their nats, over numbers and
    choices of masked pieces, bounds those of the text. It is taken over ``draws``, spread evenly over the numbers.
    """
    generator = torch.Generator(ids.device).manual_seed(seed)
    total = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    for row, own in enumerate(ids):
        mask = stratified_mask(draws, len(own), generator)
        nats = nats_of(model(own.expand_as(mask).masked_fill(mask, mask_id)), own.expand_as(mask))
        total[row] = ((nats * mask).sum(-1) / mask.sum(-1)).mean()
    return total


@torch.no_grad()
def pseudo_likelihood(model: Denoiser, ids: Tensor, *, mask_id: int, batch: int = 32) -> Tensor:
    """Nats of each piece given all others of its row: ``[B, N]`` to ``[B, N]`` float64; N calls' work for a row."""
    found = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
    for row, own in enumerate(ids):
        for places in torch.arange(len(own), device=ids.device).split(batch):
            one = F.one_hot(places, len(own)).bool()
            logits = model(own.expand_as(one).masked_fill(one, mask_id))
            found[row, places] = nats_of(logits, own.expand_as(one))[one]
    return found


def nats_of(logits: Tensor, ids: Tensor) -> Tensor:
    """``-log p`` of the pieces ``[B, N]`` under ``logits [B, N, V]``, in float64."""
    return -logits.double().log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def bits_per_byte(model: Denoiser, corpus: Corpus, *, mask_id: int, length: int = 256, seed: int = 0) -> float:
    """The bound over a whole text, cut into windows of ``length`` pieces of which each is masked once.

    Each window is masked by a number of pieces of its own, so a long text needs no more draws.
    """
    length = min(length, len(corpus.pieces))
    rows = len(corpus.pieces) // length
    ids = corpus.pieces[: rows * length].view(rows, length)
    mask = stratified_mask(rows, length, torch.Generator().manual_seed(seed)).to(ids.device)
    nats = torch.zeros((), device=ids.device)
    with torch.no_grad():
        for own, chosen in zip(ids.split(32), mask.split(32)):
            found = nats_of(model(own.masked_fill(chosen, mask_id)), own)
            nats = nats + ((found * chosen).sum(-1) / chosen.sum(-1)).sum()
    return float(nats) / rows * len(corpus.pieces) / corpus.size / math.log(2)
