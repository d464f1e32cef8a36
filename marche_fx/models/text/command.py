"""``marche-fx train-text``."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from ...saving.files import write_text
from ...saving.locks import held_file
from ...saving.refused import make_folder
from ..checkpoint import load_checkpoint
from ..devices import device_of
from ..train import WEIGHTS_FILE
from .corpus import encode, read_lines, split_lines
from .model import TextDiffusion
from .recipe import Recipe
from .samples import samples
from .training import train_text
from .vocabulary import read_tokenizer, save_tokenizer, train_tokenizer
from .watching import watch

VOCABULARY_FILE = "vocabulary.json"
VOCABULARY_SIZE = 4096
SAMPLES_FILE = "samples.txt"


def run_training(
    text: Path,
    out: Path,
    recipe: Recipe,
    *,
    minutes: float = math.inf,
    bf16: bool = False,
    device: str = "cpu",
    compile: bool = False,
    dropout: float = 0.0,
    checkpoint_seconds: float = 240.0,
) -> None:
    """Learn a vocabulary and the model from ``text``, both in the folder ``out``; print how it goes.

    A vocabulary that is there already is kept. The weights are those that need the fewest bits for the held-out part,
    among those of every ``checkpoint_seconds``.
    """
    place = device_of(device)
    training, held_out = split_lines(read_lines(text))
    make_folder(out)
    # A model belongs to its vocabulary: no other process puts its own there meanwhile.
    with held_file(out / VOCABULARY_FILE, "training"):
        if not (out / VOCABULARY_FILE).exists():
            save_tokenizer(train_tokenizer(training, VOCABULARY_SIZE), out / VOCABULARY_FILE)
        tokenizer = read_tokenizer(out / VOCABULARY_FILE)
        unseen = encode(held_out, tokenizer).to(place)
        torch.manual_seed(recipe.seed)
        model = train_text(
            TextDiffusion(tokenizer.get_vocab_size(), dropout=dropout).to(place),
            encode(training, tokenizer).to(place),
            out,
            recipe,
            bf16=bf16,
            compile=compile,
            minutes=minutes,
            checkpoint_seconds=checkpoint_seconds,
            watch=watch(unseen, tokenizer, out / WEIGHTS_FILE, bf16=bf16),
        )
        load_checkpoint(model, out / WEIGHTS_FILE)
        written = [samples(model, unseen, tokenizer, temperature) for temperature in (0.0, 0.8)]
        write_text(out / SAMPLES_FILE, "\n\n\n".join(written) + "\n")
    print(f"averaged weights: {out / WEIGHTS_FILE}, vocabulary: {out / VOCABULARY_FILE}, samples: {out / SAMPLES_FILE}")
