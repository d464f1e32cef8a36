"""How far a head's denoising is from 100 ancestral steps, in distribution: what docs/head.md shows.

Each variant draws the same tokens of the bundled MAR many times, given vectors that a generation read, on the noise of
the exact draws, which two runs share where they can. Of each token the draws are compared with those of 100 steps:
energy distance (0 where the distributions are equal; unbiased, so it may be negative) and spread, the mean distance of
two draws, both over the spread of exact draws; and the distance of the means over the exact deviation. ``100, other
noise`` shows what chance alone does where no noise is shared.

    python scripts/denoising_distance.py --out docs/head/distances.json
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from marche_fx.denoising import Denoising, denoising_to_dict, parse_denoising
from marche_fx.denoising.replace import with_denoising
from marche_fx.models import MAR, load_fashion_mar
from marche_fx.saving.files import write_json
from marche_fx.tuning.energy import distance_between

EXACT_STEPS = 100
EXACT = Denoising(steps=EXACT_STEPS)
OTHER_NOISE = "100, other noise"

WORDS = {
    0.8: ("50", "25", "15", "10", "quadratic:25", "quadratic:15", "quadratic:10", "logsnr:10"),
    1.0: (
        *("quadratic:25", "quadratic:10"),
        *("ddim:50", "ddim:14", "ddim:logsnr:14"),
        *("dpm++2m:14", "dpm++2m:8", "dpm++2m:logsnr:14", "dpm++2m:logsnr:8"),
    ),
}
"""By temperature."""

INTERVALS = {0.8: ((0.1, 1.0), (0.0, 0.6)), 1.0: ()}
"""Of guidance, with 100 steps."""

NAMES = {"energy": "energy_distance", "energy_error": "energy_distance_error"}
"""What the file calls some figures."""

Read = tuple[Tensor, float]
"""Vectors ``[2 R, Z]`` of tokens, conditional ones first, and the guidance scale at which they were read."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=30, help="of each of eight decoding steps")
    parser.add_argument("--draws", type=int, default=24, help="of each token")
    given = parser.parse_args()
    console, mar = Console(), load_fashion_mar()
    reads = vectors(mar, given.tokens)
    rows: list[dict[str, Any]] = []
    for temperature, words in WORDS.items():
        exact = drawn(mar, EXACT, temperature, reads, given.draws)
        asked = {word: parse_denoising(word) for word in words}
        if INTERVALS[temperature]:
            asked[OTHER_NOISE] = EXACT
        for low, high in INTERVALS[temperature]:
            asked[f"100, guided in {low:g} .. {high:g}"] = Denoising(steps=100, guidance=(low, high))
        for word, denoising in asked.items():
            began = time.perf_counter()
            own = drawn(mar, denoising, temperature, reads, given.draws, seed=int(word == OTHER_NOISE))
            figures = asdict(distance_between(torch.cat(own, 1), torch.cat(exact, 1)))
            figures = {NAMES.get(name, name): value for name, value in figures.items()}
            rows.append({"denoising": word, "temperature": temperature, **figures, "of": denoising_to_dict(denoising)})
            console.print(f"{temperature:g} {word}: {figures}, {time.perf_counter() - began:.0f} s")
            given.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(given.out, {"tokens": 8 * given.tokens, "draws": given.draws, "rows": rows})


def vectors(mar: MAR, tokens: int, images: int = 40, steps: int = 32) -> list[Read]:
    """What the head was given in eight steps of an exact generation, for ``tokens`` random tokens of each."""
    reads: list[Read] = []
    head = mar.diffloss
    original = head.sample

    def sample(z: Tensor, temperature: float, cfg: float, **others: Any) -> Tensor:
        reads.append((z, cfg))
        return original(z, temperature, cfg, **others)

    vars(head)["sample"] = sample
    try:
        labels = torch.arange(images) % mar.num_classes
        generator = torch.Generator().manual_seed(0)
        mar.sample_tokens(images, steps, 3.0, labels=labels, temperature=0.8, generator=generator)
    finally:
        del vars(head)["sample"]
    chosen = []
    for z, cfg in reads[3::4]:
        half = len(z) // 2
        picked = torch.randperm(half, generator=generator)[:tokens]
        chosen.append((torch.cat([z[picked], z[half + picked]]), cfg))
    return chosen


def drawn(
    mar: MAR, denoising: Denoising, temperature: float, reads: list[Read], draws: int, *, seed: int = 0
) -> list[Tensor]:
    """``[K, R, C]`` for the vectors of each step: every token drawn ``K`` times."""
    head: Any = with_denoising(mar.diffloss, denoising, lambda _: (0, 1))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for z, cfg in reads:
        conditional, unconditional = z.chunk(2)
        repeated = torch.cat([conditional.repeat(draws, 1), unconditional.repeat(draws, 1)])
        noise = torch.randn(EXACT_STEPS, draws * len(conditional), mar.token_embed_dim, generator=generator)
        tokens = head.sample(repeated, temperature, cfg, noise=noise)[: len(repeated) // 2]
        found.append(tokens.view(draws, len(conditional), -1))
    return found


if __name__ == "__main__":
    main()
