"""``marche-fx train-text``."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoint import save_weights
from ..train import WEIGHTS_FILE
from .corpus import encode, read_lines, split_lines
from .model import TextDiffusion
from .training import Recipe, train_text
from .vocabulary import read_tokenizer, save_tokenizer, train_tokenizer
from .watching import watch

VOCABULARY_FILE = "vocabulary.json"
VOCABULARY_SIZE = 4096


def run_training(text: Path, out: Path, recipe: Recipe, *, minutes: float, bf16: bool) -> None:
    """Learn a vocabulary and the model from ``text``, both in the folder ``out``; print how it goes."""
    training, held_out = split_lines(read_lines(text))
    out.mkdir(parents=True, exist_ok=True)
    if not (out / VOCABULARY_FILE).exists():
        save_tokenizer(train_tokenizer(training, VOCABULARY_SIZE), out / VOCABULARY_FILE)
    tokenizer = read_tokenizer(out / VOCABULARY_FILE)
    torch.manual_seed(recipe.seed)
    model = train_text(
        TextDiffusion(tokenizer.get_vocab_size()),
        encode(training, tokenizer),
        out,
        recipe,
        bf16=bf16,
        minutes=minutes,
        watch=watch(encode(held_out, tokenizer), tokenizer, bf16=bf16),
    )
    save_weights(model, out / WEIGHTS_FILE)
    print(f"averaged weights: {out / WEIGHTS_FILE}, vocabulary: {out / VOCABULARY_FILE}")
