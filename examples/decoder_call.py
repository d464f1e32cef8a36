"""One call of MAR's decoder, of 320 tokens in 8 samples, at so many active tokens: times faster than the original.

python examples/decoder_call.py [fashion|base|large] [repeats]
"""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import marche_fx
from marche_fx.models.presets import SIZES

ACTIVE = (24, 40, 64, 128)

ONLY_READ = marche_fx.StalenessRefresh(0.0, warmup=0, tolerance=math.inf)
"""Computes the tokens that are read, and no others."""


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def read(optimized: Any, x: Tensor, masked: Tensor, active: int) -> Tensor:
    """The rows that are read are those that are computed."""
    rows: Tensor = optimized.forward_mae_decoder(x, masked)[:, :active]
    return rows


@torch.no_grad()
def main(size: str = "base", repeats: int = 9) -> dict[str, list[float]]:
    """Medians over the repeats, in each of which the original and all others take their turn."""
    samples = 8
    torch.manual_seed(0)
    model = SIZES[size]().eval()
    masked = (torch.arange(model.seq_len) < model.seq_len // 2).float().expand(samples, -1)
    kept = model.buffer_size + model.seq_len - model.seq_len // 2
    x = torch.randn(samples, kept, model.mask_token.shape[-1])
    models: dict[str, nn.Module] = {
        f"ours {kind}": marche_fx.transform(model, refresh=ONLY_READ, compile=kind == "compiled", verify=False)
        for kind in ("eager", "compiled")
    }
    compiled = torch.compile(model.forward_mae_decoder)
    taken: dict[str, list[list[float]]] = {}
    with contextlib.ExitStack() as stack:
        for optimized in models.values():
            stack.enter_context(marche_fx.decoding(optimized))
        for _ in range(repeats + 2):
            exact = seconds(lambda: model.forward_mae_decoder(x, masked))
            taken.setdefault("original compiled", []).append([exact / seconds(lambda: compiled(x, masked))])
            for name, optimized in models.items():
                own = [seconds(partial(read, optimized, x, masked, active)) for active in ACTIVE]
                taken.setdefault(name, []).append([exact / each for each in own])
    found = {name: [statistics.median(own) for own in zip(*ratios[2:])] for name, ratios in taken.items()}
    print(f"times faster than the original at {', '.join(map(str, ACTIVE))} active tokens")
    for name, medians in found.items():
        print(f"{name}: {', '.join(f'{ratio:.1f}x' for ratio in medians)}")
    return found


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "base", int(sys.argv[2]) if len(sys.argv) > 2 else 9)
