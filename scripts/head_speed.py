"""How much faster a head alone is than the original in eager PyTorch: the last table of docs/head.md.

Random weights, guidance 3. All variants denoise the same vectors, one after the other, again and again; told are the
median over rounds of the processor time of the original over that of the variant in the same round, which other
programs on the machine move less than they move a clock.

    OMP_NUM_THREADS=1 python scripts/head_speed.py --rows 8 64
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import nn

import marche_fx
from marche_fx import Denoising, HeadReuse, Interpolate
from marche_fx.models import mar_base, mar_huge, mar_large

MODELS: dict[str, Callable[..., Any]] = {"base": mar_base, "large": mar_large, "huge": mar_huge}
SCALE = 3.0

VARIANTS: dict[str, dict[str, Any]] = {
    "products by oneDNN": {},
    "exact": {"reuse": "exact"},
    "balanced": {"reuse": "balanced"},
    "Interpolate(10), guidance=4": {"reuse": HeadReuse(Interpolate(10), guidance=4)},
    "lazymar": {"reuse": "lazymar"},
    "quadratic:10": {"denoising": Denoising(10, "quadratic")},
    "quadratic:10, exact": {"denoising": Denoising(10, "quadratic"), "reuse": "exact"},
    "quadratic:10, balanced": {"denoising": Denoising(10, "quadratic"), "reuse": "balanced"},
}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=MODELS, default="base")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 64], help="of both halves of guidance")
    parser.add_argument("--steps", type=int, default=100, help="denoising steps of the original")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", help="a variant of which operators are told instead")
    given = parser.parse_args()
    console, model = Console(), model_of(MODELS[given.size], given.steps)
    heads = {"original": model.diffloss}
    wanted = VARIANTS if given.profile is None else {given.profile: VARIANTS[given.profile]}
    heads |= {name: marche_fx.transform(model, **options).diffloss for name, options in wanted.items()}
    for rows in given.rows:
        z = torch.randn(rows, model.diffloss.net.cond_embed.in_features)
        for head in heads.values():
            # The first tell what is what, capture and compile.
            for _ in range(2):
                head.sample(z, cfg=SCALE)
        if given.profile is not None:
            tell_operators(heads[given.profile], z)
            continue
        seconds = {name: [] for name in heads}  # type: dict[str, list[float]]
        for _ in range(given.rounds):
            for name, head in heads.items():
                began = time.process_time()
                head.sample(z, cfg=SCALE)
                seconds[name].append(time.process_time() - began)
        for name, own in seconds.items():
            ratio = median(before / now for before, now in zip(seconds["original"], own))
            console.print(f"{rows} rows, {name}: {min(own):.3f} s, {ratio:.2f}x")


def model_of(make: Callable[..., Any], steps: int) -> Any:
    """A model whose transformer is small, for only the head is called; its weights are random."""
    torch.manual_seed(0)
    model = make(encoder_depth=1, decoder_depth=1, num_sampling_steps=str(steps)).eval()
    for parameter in model.diffloss.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model


def tell_operators(head: Any, z: torch.Tensor) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        head.sample(z, cfg=SCALE)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=60))


if __name__ == "__main__":
    main()
