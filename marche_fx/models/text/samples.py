"""What a trained model writes, for a person to read."""

from __future__ import annotations

import torch

from .corpus import Corpus
from .decoding import generate
from .model import TextDiffusion
from .ngram import distinct
from .vocabulary import Tokenizer


def samples(
    model: TextDiffusion,
    text: Corpus,
    tokenizer: Tokenizer,
    temperature: float,
    *,
    count: int = 4,
    given: int = 32,
    length: int = 128,
    seed: int = 0,
) -> str:
    """How ``model`` goes on in LLaDA's loop from lines of ``text``, and how much of it is not repeated."""
    starts = text.starts_of(given)
    prompts = text.windows(starts[torch.arange(count) * len(starts) // count], given)
    generator = torch.Generator(prompts.device).manual_seed(seed)
    ids = generate(model, prompts, length, mask_id=model.mask_id, temperature=temperature, generator=generator)
    title = f"temperature {temperature}, {distinct(ids[:, given:]):.2f} of the 4-grams are different ones"
    rows = [tokenizer.decode(row[:given].tolist()) + " >>> " + tokenizer.decode(row[given:].tolist()) for row in ids]
    return "\n\n".join([title, *rows])
