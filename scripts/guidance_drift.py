"""What reuse of the unconditional half of guidance would cost in the transformer: a table of docs/head.md.

The exact decoding of garments of the bundled MAR (32 steps, guidance to 3) is replayed step by step: both halves see
the exact tokens. ``difference``: both halves are computed in full at every k-th decoding step, for nobody knows which
rows the steps between will read; these compute the conditional half, and the unconditional rows are the conditional
ones less their last difference. ``lighter``: a smaller share of the unconditional tokens is refreshed. Told are the
drift of the vectors that a step reads, both halves, over their norm; the deviation of the tokens that the head draws of
them, over their spread; and FLOPs of the transformer over exact ones.

    python scripts/guidance_drift.py --out docs/head/guidance.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.models import MAR, load_fashion_mar
from marche_fx.models.drift import DecodingStep, replay
from marche_fx.saving.files import write_json

STEPS, SCALE, TEMPERATURE = 32, 3.0, 0.8
SHARES = (0.02, 0.05, 0.1, 0.25)
WITH_FULL_STEPS = (0.02, 0.1)
PERIODS = (4, 8)
WARM_UP = 3

Vectors = list[Tensor]
"""Of each step ``[2 b, N, D]``, conditional samples first."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10)
    given = parser.parse_args()
    console, mar = Console(), load_fashion_mar()
    steps = recorded(mar, given.images)
    exact = vectors(mar, steps)
    # Drawn in ten denoising steps, which costs a tenth and tells the same deviation.
    head = marche_fx.transform(mar, denoising="quadratic:10", compile=False).diffloss
    tokens = drawn(head, steps, exact)
    rows: list[dict[str, Any]] = []

    def tell(name: str, found: Vectors, flops: float) -> None:
        drift = mean(float((b - a)[own.read].norm() / a[own.read].norm()) for own, a, b in zip(steps, exact, found))
        deviation = float(((drawn(head, steps, found) - tokens) ** 2).mean().sqrt() / tokens.std())
        rows.append({"variant": name, "drift": drift, "deviation": deviation, "flops": flops})
        console.print(f"{name}: drift {drift:.4f}, tokens {deviation:.3f}, FLOPs {flops:.3f}")
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out, {"images": given.images, "rows": rows})

    found: dict[float, tuple[Vectors, float]] = {}
    for share in SHARES:
        found[share] = cached(mar, steps, share, None)[:2]
        tell(f"{share:.0%}", *found[share])
    for every in PERIODS:
        in_full = sum(is_in_full(number, every) for number in range(STEPS))
        tell(f"all, difference of {every}", by_difference(exact, exact, every), (1 + in_full / STEPS) / 2)
        for share in WITH_FULL_STEPS:
            own, flops, halved = cached(mar, steps, share, every)
            tell(f"{share:.0%} and all of every {every}", own, flops)
            tell(f"{share:.0%}, difference of {every}", by_difference(own, exact, every), halved)
    own, flops = found[SHARES[-2]]
    for less in SHARES[:-2]:
        lighter, fewer = found[less]
        halves = [torch.cat([a[: len(a) // 2], b[len(b) // 2 :]]) for a, b in zip(own, lighter)]
        tell(f"{SHARES[-2]:.0%}, lighter of {less:.0%}", halves, (flops + fewer) / 2)


def recorded(mar: MAR, images: int) -> list[DecodingStep]:
    """The steps of an exact generation."""
    labels, generator = torch.arange(images) % mar.num_classes, torch.Generator().manual_seed(5)
    orders = mar.sample_orders(images, generator)
    made = mar.sample_tokens(
        images, STEPS, SCALE, labels=labels, temperature=TEMPERATURE, orders=orders, generator=generator
    )
    return list(replay(mar, made, orders, labels, STEPS, SCALE))


def vectors(
    mar: MAR, steps: list[DecodingStep], take: Callable[[Tensor, DecodingStep], Tensor] | None = None
) -> Vectors:
    found = []
    for own in steps:
        z = mar.forward_mae_decoder(mar.forward_mae_encoder(own.tokens, own.mask, own.class_embedding), own.mask)
        found.append(z if take is None else take(z, own))
    return found


def cached(mar: MAR, steps: list[DecodingStep], share: float, every: int | None) -> tuple[Vectors, float, float]:
    """Vectors of rows that are read, where ``share`` of the tokens is refreshed, and all at every ``every``-th step.

    With FLOPs over exact ones, and the same where steps that are not in full compute half of the samples.
    """
    policy = SelectiveRefresh(share, WARM_UP, every)
    optimized = marche_fx.transform(mar, refresh=policy, compile=False, verify=False)

    def rows_read(z: Tensor, own: DecodingStep) -> Tensor:
        whole = torch.zeros(*own.read.shape, mar.diffusion_pos_embed_learned.shape[-1])
        whole[own.read] = z[own.read.nonzero(as_tuple=True)]
        return whole

    with marche_fx.decoding(optimized):
        found = vectors(optimized, steps, rows_read)
    session = optimization_of(optimized).last_session
    assert session is not None
    calls = [own for own in session.records if not own.again]
    computed, exact = (sum(own) for own in zip(*((own.flops, own.original_flops) for own in calls)))
    # In each step the encoder and the decoder were called.
    partial = sum(own.flops for number, own in enumerate(calls) if not is_in_full(number // 2, every))
    return found, computed / exact, (computed - partial / 2) / exact


def by_difference(own: Vectors, exact: Vectors, every: int) -> Vectors:
    """Unconditional rows as the conditional ones less their difference in the last step in full."""
    found = []
    for number, z in enumerate(own):
        first, second = exact[last_in_full(number, every)].chunk(2)
        conditional = z.chunk(2)[0]
        found.append(torch.cat([conditional, conditional - (first - second)]))
    return found


def last_in_full(number: int, every: int) -> int:
    return next(own for own in range(number, -1, -1) if is_in_full(own, every))


def is_in_full(number: int, every: int | None) -> bool:
    return number < WARM_UP or (every is not None and number % every == 0)


def drawn(head: Any, steps: list[DecodingStep], found: Vectors) -> Tensor:
    """Tokens ``[R, C]`` of the rows that each step reads, on the same noise whatever their vectors."""
    generator, tokens, decoded = torch.Generator().manual_seed(0), [], 0
    for own, z in zip(steps, found, strict=True):
        read = z[own.read]
        half, length = len(read) // 2, own.mask.shape[1]
        decoded += half
        scale = 1 + (SCALE - 1) * decoded / (length * (len(z) // 2))
        tokens.append(head.sample(read, TEMPERATURE, scale, generator=generator)[:half])
    return torch.cat(tokens)


def mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
