"""Beginnings of texts that the bundled model was never trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...models.bundled import WEIGHTS
from ...models.text import Corpus
from ...saving.files import read_sealed_json, write_sealed_json

PROMPTS_FILE = WEIGHTS / "text_prompts.json"
CHOOSING = 16
"""So many of the prompts, the first ones, are there to choose policies by; figures are reported of the others."""


def load_prompts(count: int, length: int, *, choosing: bool = False) -> Tensor:
    """The last ``length`` pieces of so many prompts ``[count, length]``: those to report, or those to choose by.

    Raises:
        ArgumentError: there are fewer, or they are shorter.
    """
    pieces = torch.tensor([list(map(int, prompt.split())) for prompt in read_sealed_json(PROMPTS_FILE)["prompts"]])
    own = pieces[:CHOOSING] if choosing else pieces[CHOOSING:]
    for wanted, there, what in ((count, len(own), "prompts"), (length, own.shape[1], "pieces in a prompt")):
        if not 1 <= wanted <= there:
            raise ArgumentError(f"there are {there} {what}, got {wanted}")
    return own[:count, -length:]


def cut_prompts(held_out: Corpus, count: int, length: int) -> Tensor:
    """``[count, length]`` pieces of a text, each from the beginning of a line, as far apart as can be."""
    starts = held_out.starts_of(length)
    wanted = torch.arange(count) * (len(held_out.pieces) // count)
    return held_out.windows(starts[torch.searchsorted(starts, wanted).clamp(max=len(starts) - 1)], length)


def save_prompts(prompts: Tensor, path: Path) -> None:
    """Write pieces ``[P, N]``, those of a prompt in a line."""
    write_sealed_json(path, {"prompts": [" ".join(map(str, prompt)) for prompt in prompts.tolist()]})
