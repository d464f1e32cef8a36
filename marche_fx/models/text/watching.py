"""What a training prints at its checkpoints: losses, and now and then a sample."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from .corpus import Corpus
from .decoding import generate
from .likelihood import bits_per_byte
from .model import TextDiffusion
from .training import Progress
from .vocabulary import Tokenizer


def watch(
    held_out: Corpus, tokenizer: Tokenizer, *, every: int = 4, length: int = 128, bf16: bool = False
) -> Callable[[TextDiffusion, Progress], None]:
    """Print the losses of the averaged model at each call, and at each ``every``-th one how it goes on from a line."""
    calls = 0

    def tell(averaged: TextDiffusion, progress: Progress) -> None:
        nonlocal calls
        averaged.eval()
        with torch.autocast(held_out.pieces.device.type, torch.bfloat16, enabled=bf16):
            bits = bits_per_byte(averaged, held_out, mask_id=averaged.mask_id)
        print(
            f"{time.strftime('%H:%M')} step {progress.step}: loss {progress.loss:.3f} nats per piece, "
            f"held out {bits:.4f} bits per byte, {progress.pieces_per_second:.0f} pieces/s",
            flush=True,
        )
        if calls % every == 0:
            generator = torch.Generator().manual_seed(progress.step)
            prompt = held_out.pieces[None, : int(held_out.starts[1])]
            ids = generate(averaged, prompt, length, mask_id=averaged.mask_id, temperature=0.7, generator=generator)
            print("    " + tokenizer.decode(ids[0].tolist()).replace("\n", "\n    "), flush=True)
        calls += 1

    return tell
