"""What a training prints and keeps at its checkpoints: losses, now and then a sample, the best weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..checkpoint import load_checkpoint, save_weights
from .corpus import Corpus
from .decoding import generate
from .likelihood import bits_per_byte
from .model import TextDiffusion
from .training import Progress
from .vocabulary import Tokenizer


def watch(
    held_out: Corpus, tokenizer: Tokenizer, best: Path, *, every: int = 4, length: int = 128, bf16: bool = False
) -> Callable[[TextDiffusion, Progress], None]:
    """Print the losses of the averaged model at each call, and at each ``every``-th one how it goes on from a line.

    Its weights are written to ``best`` where they need fewer bits for the held-out text than those there, so a run that
    reads its text too often loses nothing by it.
    """
    calls = 0
    lowest = math.nan

    def bits_of(model: TextDiffusion) -> float:
        with torch.autocast(held_out.pieces.device.type, torch.bfloat16, enabled=bf16):
            return bits_per_byte(model, held_out, mask_id=model.mask_id)

    def tell(averaged: TextDiffusion, progress: Progress) -> None:
        nonlocal calls, lowest
        averaged.eval()
        if math.isnan(lowest):
            earlier = best.exists()
            lowest = bits_of(load_checkpoint(copy.deepcopy(averaged), best)) if earlier else math.inf
        bits = bits_of(averaged)
        print(
            f"{time.strftime('%H:%M:%S')} step {progress.step}: loss {progress.loss:.3f} nats per piece, "
            f"held out {bits:.4f} bits per byte{', the fewest yet' if bits < lowest else ''}, "
            f"{progress.pieces_per_second:.0f} pieces/s",
            flush=True,
        )
        if bits < lowest:
            lowest = bits
            save_weights(averaged, best)
        if calls % every == 0:
            prompt = held_out.pieces[None, : int(held_out.starts[1])]
            generator = torch.Generator(prompt.device).manual_seed(progress.step)
            ids = generate(averaged, prompt, length, mask_id=averaged.mask_id, temperature=0.7, generator=generator)
            print("    " + tokenizer.decode(ids[0].tolist()).replace("\n", "\n    "), flush=True)
        calls += 1

    return tell
