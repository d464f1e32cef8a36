"""A text and a model of it, small enough to train in a second."""

from __future__ import annotations

from typing import Any

import torch

from marche_fx.models.text import Corpus, TextDiffusion, encode
from marche_fx.models.text.recipe import Recipe
from marche_fx.models.text.vocabulary import Tokenizer, train_tokenizer

LINES = [
    f"And {name} begat {son}, and {son} was the son of {name}."
    for name in ("Adam", "Seth", "Enos", "Cainan", "Jared", "Enoch", "Lamech", "Noah")
    for son in ("Shem", "Ham", "Japheth", "Gomer", "Magog", "Madai", "Javan", "Tubal")
]
VOCABULARY = 300
RECIPE = Recipe(steps=12, decay=4, batch=64, lengths=(16, 32), warmup=3, ema=0.8)


def tiny_tokenizer() -> Tokenizer:
    return train_tokenizer(LINES, VOCABULARY)


def tiny_corpus() -> Corpus:
    return encode(LINES, tiny_tokenizer())


def tiny_model(**sizes: Any) -> TextDiffusion:
    torch.manual_seed(0)
    return TextDiffusion(**{"vocabulary": VOCABULARY, "width": 32, "depth": 2, "heads": 2, "hidden": 48, **sizes})
