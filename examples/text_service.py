"""Many readers, one optimized model: texts of several lengths at once, piece by piece, each in a session of its own.

A server calls `TextService.stream` for each request, as examples/serve_text.py does behind Ray Serve.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from marche_fx.models.text import TextDiffusion

WINDOW = 32
"""Pieces are chosen among the first so many that are not written yet, so that few rows are read."""


@torch.no_grad()
def write(
    model: TextDiffusion, session: AbstractContextManager[Any], prompt: Tensor, length: int, steps: int
) -> Generator[Tensor, None, None]:
    """Ids ``[1, P + length]`` after each of ``steps`` steps, in which ``length`` masks behind ``prompt`` are filled.

    The session entered here is this generator's, whatever else runs between two of its steps; it ends with it, also
    when it is closed before its time.
    """
    with session:
        ids = torch.cat([prompt, prompt.new_full((1, length), model.mask_id)], 1)
        for step in range(steps):
            kept = length * (step + 1) // steps - length * step // steps
            masked = ids == model.mask_id
            window = masked & (masked.cumsum(-1) <= max(WINDOW, kept))
            logits = model(ids)
            confidence = logits.softmax(-1).amax(-1).masked_fill(~window, -math.inf)
            chosen = torch.zeros_like(masked).scatter(1, confidence.topk(kept, 1).indices, True)
            ids = torch.where(chosen, logits.argmax(-1), ids)
            yield ids


class TextService:
    """Writes texts for whoever asks, their steps in turn on one thread: a model computes one step at a time."""

    def __init__(self, model: Any, session: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self.model = model
        self.session = session
        """A new one for each text; of a transformed model ``lambda: marche_fx.decoding(model)``."""
        self.thread = ThreadPoolExecutor(1)
        self.open = 0
        """Texts that are being written."""

    async def stream(self, prompt: Tensor, length: int, steps: int) -> AsyncGenerator[Tensor, None]:
        """What is written so far, ``[1, P + length]``, after each step."""
        own = write(self.model, self.session(), prompt, length, steps)
        self.open += 1
        loop = asyncio.get_running_loop()
        try:
            while (ids := await loop.run_in_executor(self.thread, next, own, None)) is not None:
                yield ids
        finally:
            # Behind the step that may be running for a reader who left: its caches are freed at once.
            self.thread.submit(own.close)
            self.open -= 1
