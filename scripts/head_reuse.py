"""What reuse in a head costs in its tokens and saves in FLOPs: the tables of docs/head.md.

Tokens of the bundled MAR in 100 denoising steps, or as asked, given vectors that a generation with guidance to 3 read,
at temperature 0.8: the deviation from those of the exact head on the same noise, over their spread; and FLOPs of the
head over the original's.

    python scripts/head_reuse.py --out docs/head/reuse.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from denoising_distance import EXACT, EXACT_STEPS, Read, vectors
from rich.console import Console
from torch import Tensor

import marche_fx
from marche_fx import HeadReuse, Hold, HoldBranches, Interpolate
from marche_fx.denoising import parse_denoising
from marche_fx.head.policy import PRESETS
from marche_fx.models import MAR, load_fashion_mar
from marche_fx.saving.files import write_json

EVERY = (2, 4, 7)
POINTS = (50, 34, 20)

VARIANTS: dict[str, HeadReuse] = {
    **PRESETS,
    **{f"guidance={every}": HeadReuse(guidance=every) for every in EVERY},
    **{f"Hold({every})": HeadReuse(Hold(every)) for every in EVERY},
    **{f"Hold({every}), guidance={every}": HeadReuse(Hold(every), guidance=every) for every in EVERY},
    **{f"Interpolate({own}, 'linear')": HeadReuse(Interpolate(own, "linear")) for own in POINTS},
    **{f"Interpolate({own})": HeadReuse(Interpolate(own)) for own in POINTS},
    **{f"HoldBranches({every})": HeadReuse(branches=HoldBranches(every)) for every in EVERY},
    **{f"HoldBranches({every}, all whole)": HeadReuse(branches=HoldBranches(every, (0, 1, 2))) for every in EVERY},
    **{
        f"Interpolate(20), guidance={every}, HoldBranches({every})": HeadReuse(
            Interpolate(20), every, HoldBranches(every)
        )
        for every in EVERY
    },
}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--denoising", type=parse_denoising, default=EXACT, help="a word, such as quadratic:10")
    parser.add_argument("--tokens", type=int, default=30, help="of each of eight decoding steps")
    given = parser.parse_args()
    console, mar = Console(), load_fashion_mar()
    reads = vectors(mar, given.tokens)
    exact = tokens(marche_fx.transform(mar, denoising=given.denoising, compile=False), reads)
    rows: list[dict[str, Any]] = []
    for name, reuse in VARIANTS.items():
        optimized: Any = marche_fx.transform(mar, denoising=given.denoising, reuse=reuse, compile=False, verify=False)
        # The first denoising tells which argument is what, and its timesteps.
        tokens(optimized, reads[:1])
        (head,) = [own for own in optimized._marche_fx.heads.values() if own.programs]
        head.record.denoisings.clear()
        found = tokens(optimized, reads)
        deviation = float(((found - exact) ** 2).mean().sqrt() / exact.std())
        rows.append({"reuse": name, "deviation": deviation, "flops": head.record.flops_ratio})
        console.print(f"{name}: {deviation:.4f} / {head.record.flops_ratio:.3f}")
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out, {"tokens": 8 * given.tokens, "rows": rows})


def tokens(model: MAR, reads: list[Read]) -> Tensor:
    """``[R, C]``: a token for each of the vectors."""
    generator, found = torch.Generator().manual_seed(0), []
    for z, cfg in reads:
        half = len(z) // 2
        noise = torch.randn(EXACT_STEPS, half, model.token_embed_dim, generator=generator)
        found.append(model.diffloss.sample(z, 0.8, cfg, noise=noise)[:half])
    return torch.cat(found)


if __name__ == "__main__":
    main()
