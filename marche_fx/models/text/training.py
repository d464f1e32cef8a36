"""Training of the text model: LLaDA's objective, resumable after a kill at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...errors import TrainingError
from ..training_state import prepare_folder, resume, save
from .corpus import Corpus
from .masking import stratified_mask
from .model import TextDiffusion
from .optimizer import MuonWithAdamW

MAY_CHANGE = ("steps", "decay")
"""What a run that goes on may do otherwise: how long it lasts, and when its learning rate begins to fall."""


@dataclass(frozen=True)
class Recipe:
    """What a run is trained with.

    The learning rate rises for ``warmup`` steps, stays, and falls to nothing in the last ``decay`` of ``steps``; both
    may change on resuming, so a run whose end is not known yet takes many steps and no decay. Each step takes
    ``batch`` pieces, as windows of one of the ``lengths``.
    """

    steps: int = 10_000
    decay: int = 2_000
    batch: int = 4096
    lengths: tuple[int, ...] = (128, 256, 256, 256, 256, 512, 512, 1024)
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of ``step``, counted from 0."""
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        falling = (self.steps - step) / self.decay if self.decay else 1.0
        return self.learning_rate * min(1.0, rising, falling)


@dataclass(frozen=True)
class Progress:
    """Where a run is when it writes its state. ``loss`` is a bound of nats per piece, smoothed over steps."""

    step: int
    loss: float
    pieces_per_second: float


def train_text(
    model: TextDiffusion,
    corpus: Corpus,
    out: Path,
    recipe: Recipe,
    *,
    bf16: bool = False,
    minutes: float = math.inf,
    checkpoint_seconds: float = 240.0,
    watch: Callable[[TextDiffusion, Progress], None] = lambda averaged, progress: None,
) -> TextDiffusion:
    """Minimise the masked-diffusion bound over ``corpus``; return the model with the averaged (EMA) weights.

    The state is written to ``out`` every ``checkpoint_seconds``, at the end and after ``minutes``; a run that finds one
    there goes on from it, to the same weights, bit for bit, as if it had never stopped. After each write ``watch`` is
    called with the averaged model.

    Raises:
        TrainingError: ``out`` cannot be written, or holds a damaged state or that of another model or recipe; the text
            is too short; the loss is no longer finite.
    """
    prepare_folder(out)
    optimizer = MuonWithAdamW(model, recipe.weight_decay)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
    smoothed = cast(TextDiffusion, averaged.module)
    step = resume(out, model, averaged, optimizer, asdict(recipe), may_change=MAY_CHANGE)
    model.train()
    began = saved = time.monotonic()
    first, smooth = step, math.nan
    while step < recipe.steps:
        ids, mask = draw_batch(corpus, recipe, step)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=bf16):
            loss = masked_loss(model, ids, mask)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value} in step {step}; {out} keeps the last state before it")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step(recipe.rate(step))
        averaged.update_parameters(model)
        step += 1
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        now = time.monotonic()
        over = step == recipe.steps or now - began > 60 * minutes
        if over or now - saved > checkpoint_seconds:
            save(out, model, averaged, optimizer, asdict(recipe), step)
            saved = now
            watch(smoothed, Progress(step, smooth, (step - first) * recipe.batch / (now - began)))
        if over:
            break
    return smoothed.eval()


def draw_batch(corpus: Corpus, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The pieces ``[B, N]`` of ``step`` and which of them are masked ``[B, N]``, the same whenever it is asked.

    Each window begins with a line. LLaDA draws a ratio and masks each piece with that chance; here, as in its
    estimate of the likelihood, which has the same mean and less variance, the number of masked pieces is drawn, from
    1..N, and spread evenly over the batch.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    length = recipe.lengths[int(torch.randint(len(recipe.lengths), (), generator=generator))]
    starts = corpus.starts_of(length)
    if not len(starts):
        raise TrainingError(f"the text has {len(corpus.pieces)} pieces, too few for windows of {length}")
    rows = max(1, recipe.batch // length)
    ids = corpus.windows(starts[torch.randint(len(starts), (rows,), generator=generator)], length)
    return ids, stratified_mask(rows, length, generator)


def masked_loss(model: TextDiffusion, ids: Tensor, mask: Tensor) -> Tensor:
    """The bound of nats per piece: the mean over rows ``[B, N]`` of the mean over a row's masked pieces."""
    x = model.hidden(ids.masked_fill(mask, model.mask_id))
    nats = F.cross_entropy(model.head(x[mask]).float(), ids[mask], reduction="none")
    return (nats * (1 / mask.sum(-1, keepdim=True)).expand_as(mask)[mask]).sum() / len(ids)
