"""How good answers are: under the exact model, and under one that knows nothing of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...models.bundled import load_tokenizer
from ...models.parallel_decoding import Denoiser
from ...models.text import Ngrams, encode, read_lines, split_lines
from ...models.text.likelihood import nats_of

APART = 8
"""Pieces between two that are masked at once: so many calls tell the nats of all."""


@torch.no_grad()
def nats_of_answers(model: Denoiser, prompt: Tensor, answers: Tensor, *, mask_id: int, apart: int = APART) -> Tensor:
    """Nats of each piece of ``answers [B, A]`` given the ``prompt [B, P]`` and the other pieces: ``[B, A]`` float64.

    A pseudo-likelihood in ``apart`` calls instead of A: pieces so far apart are masked and predicted together.
    """
    ids = torch.cat([prompt, answers], 1)
    place = torch.arange(ids.shape[1], device=ids.device) - prompt.shape[1]
    found = torch.zeros(answers.shape, dtype=torch.float64, device=ids.device)
    for first in range(min(apart, answers.shape[1])):
        chosen = (place >= 0) & (place % apart == first)
        logits = model(ids.masked_fill(chosen, mask_id))[:, chosen]
        found[:, chosen[prompt.shape[1] :]] = nats_of(logits, ids[:, chosen])
    return found


class OtherJudge:
    """A 5-gram model of the text that the bundled model has read; ``text`` is that text as a file."""

    def __init__(self, text: Path) -> None:
        self.tokenizer = load_tokenizer()
        training, _ = split_lines(read_lines(text))
        self.ngrams = Ngrams(encode(training, self.tokenizer).pieces, self.tokenizer.get_vocab_size())

    def bits_per_byte(self, prompts: Tensor, answers: Tensor) -> list[float]:
        """Of each of the answers ``[B, A]`` behind its prompt ``[B, P]``."""
        nats = self.ngrams.nats(torch.cat([prompts, answers], 1))[:, prompts.shape[1] :].sum(-1)
        return [own / size / math.log(2) for own, size in zip(nats.tolist(), self.sizes(answers.tolist()))]

    def sizes(self, answers: Sequence[Sequence[int]]) -> list[int]:
        return [len(self.tokenizer.decode(answer).encode()) for answer in answers]
