"""What refresh policies cost a masked-diffusion language model: drift, agreement with exact decoding, perplexity.

python examples/text_quality.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from examples.masked_diffusion_text import MASK, PROMPT, TextDiffusion, encode, fill_in, next_masks, train
from marche_fx import RandomRefresh, RefreshPolicy, SelectiveRefresh, StalenessRefresh
from marche_fx.tuning.replay import record, replay

KINDS: dict[str, Callable[[float], RefreshPolicy]] = {
    "selective": SelectiveRefresh,
    "MARché's signal": partial(SelectiveRefresh, age=False, sites="all"),
    "oldest first": StalenessRefresh,
    "random": RandomRefresh,
}

POLICIES: dict[str, RefreshPolicy] = {
    "exact": marche_fx.FullRefresh(),
    "nothing": SelectiveRefresh(0.0),
    **{f"{name} {share:.0%}": kind(share) for share in (0.05, 0.1, 0.25) for name, kind in KINDS.items()},
}


@torch.no_grad()
def perplexity(model: nn.Module, ids: Tensor, start: int) -> float:
    """Of the characters from ``start`` on in ``ids [1, N]``, each predicted from all others: pseudo-perplexity."""
    length = ids.shape[1] - start
    hidden = ids.repeat(length, 1)
    places = torch.arange(length)
    hidden[places, start + places] = MASK
    losses = []
    for part, own in zip(hidden.split(16), places.split(16)):
        logits = model(part)[torch.arange(len(part)), start + own]
        losses.append(F.cross_entropy(logits, ids[0, start + own], reduction="none"))
    return float(torch.cat(losses).mean().exp())


def measure(
    model: nn.Module, ids: Tensor, start: int, seeds: Sequence[int], policies: Mapping[str, RefreshPolicy]
) -> list[dict[str, Any]]:
    """A row for each policy, mean over seeds. All policies and the exact model decode with the same noise."""

    def generate(given: nn.Module) -> None:
        for seed in seeds:
            with marche_fx.decoding(given):
                fill_in(given, ids, seed=seed)

    recording = record(model, generate, query=next_masks)
    exact = [fill_in(model, ids, seed=seed) for seed in seeds]
    rows = []
    for name, policy in policies.items():
        forced = replay(recording, policy)
        optimized = marche_fx.transform(model, refresh=policy, query=next_masks, compile=False)
        texts = []
        for seed in seeds:
            with marche_fx.decoding(optimized):
                texts.append(fill_in(optimized, ids, seed=seed))
        same = [(own == other)[:, start:].float().mean().item() for own, other in zip(texts, exact)]
        rows.append(
            {
                "policy": name,
                "flops_ratio": forced.flops_ratio,
                "drift": forced.drift,
                "token_accuracy": sum(same) / len(same),
                "perplexity": sum(perplexity(model, text, start) for text in texts) / len(texts),
            }
        )
    return rows


def main(
    *,
    run: Path | None = Path("runs/masked_diffusion_text.pt"),
    out: Path | None = Path("runs/text_quality.json"),
    steps: int = 2000,
    tokens: int = 192,
    prompt: str = PROMPT,
    seeds: Sequence[int] = range(4),
    policies: Mapping[str, RefreshPolicy] = POLICIES,
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = TextDiffusion()
    train(model, run, steps, tokens)
    model.eval()
    ids = F.pad(encode(prompt), (0, tokens - len(prompt)), value=MASK)
    rows = measure(model, ids, len(prompt), seeds, policies)
    table = Table("policy", "FLOPs ratio", "drift", "same characters", "perplexity")
    for row in rows:
        numbers = f"{row['flops_ratio']:.3f}", f"{row['drift']:.4f}", f"{row['token_accuracy']:.1%}"
        table.add_row(row["policy"], *numbers, f"{row['perplexity']:.2f}")
    Console().print(table)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"seeds": list(seeds), "rows": rows}, indent=2) + "\n")
    return rows


if __name__ == "__main__":
    main()
