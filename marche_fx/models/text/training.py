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
from torch.optim.swa_utils import AveragedModel

from ...errors import TrainingError
from ...saving.locks import alone
from ..optimizer import MuonWithAdamW
from ..training_state import resume, save, training_folder
from .averaging import average
from .batches import Batch, draw_batch
from .corpus import Corpus
from .model import TextDiffusion
from .recipe import MAY_CHANGE, Recipe

LOOK_EVERY = 20
"""After so many steps the losses are looked at, which waits for the device."""


@dataclass(frozen=True)
class Progress:
    """Where a run is when it writes its state. ``loss`` is a bound of nats per piece, smoothed over steps."""

    step: int
    loss: float
    pieces_per_second: float


@alone("training", training_folder)
def train_text(
    model: TextDiffusion,
    corpus: Corpus,
    out: Path,
    recipe: Recipe,
    *,
    bf16: bool = False,
    compile: bool = False,
    minutes: float = math.inf,
    checkpoint_seconds: float = 240.0,
    watch: Callable[[TextDiffusion, Progress], None] = lambda averaged, progress: None,
) -> TextDiffusion:
    """Minimise the masked-diffusion bound over ``corpus``; return the model with the averaged (EMA) weights.

    It runs where ``model`` and the pieces of ``corpus`` are. The state is written to ``out`` every
    ``checkpoint_seconds``, at the end and after ``minutes``; a run that finds one there goes on from it, on a CPU and
    where its learning rate does not follow the clock to the same weights, bit for bit, as if it had never stopped.
    After each write ``watch`` is called with the averaged model. ``compile`` compiles the blocks, a graph for each of
    the recipe's lengths.

    Raises:
        TrainingError: ``out`` cannot be written, or holds a damaged state or that of another model or recipe; the text
            is too short; the loss is no longer finite.
        ArgumentError: another process is at work in ``out``.
    """
    optimizer = MuonWithAdamW(model, recipe.weight_decay)
    averaged = AveragedModel(model)
    smoothed = cast(TextDiffusion, averaged.module)
    step = resume(out, model, averaged, optimizer, asdict(recipe), may_change=MAY_CHANGE)
    model.train()
    if compile:
        for block in model.blocks:
            # One graph for all blocks; there are few lengths, and static ones make the fastest kernels.
            block.compile(dynamic=False)
    began = saved = time.monotonic()
    first, smooth = step, math.nan
    unseen: list[Tensor] = []
    while step < recipe.steps:
        batch = draw_batch(corpus, recipe, step)
        with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=bf16):
            loss = masked_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        elapsed = (time.monotonic() - began) / 60
        optimizer.step(recipe.rate(step, elapsed / minutes if minutes else 1.0))
        average(averaged, model, recipe.ema)
        unseen.append(loss.detach())
        step += 1
        now = time.monotonic()
        over = step == recipe.steps or now - began > 60 * minutes
        due = over or now - saved > checkpoint_seconds
        if due or len(unseen) == LOOK_EVERY:
            smooth = smoothed_loss(smooth, unseen, step, out)
            unseen.clear()
        if due:
            save(out, model, averaged, optimizer, asdict(recipe), step)
            saved = now
            watch(smoothed, Progress(step, smooth, (step - first) * recipe.batch / (now - began)))
        if over:
            break
    return smoothed.eval()


def smoothed_loss(smooth: float, losses: list[Tensor], step: int, out: Path) -> float:
    """The smoothed loss after ``losses`` of the last steps before ``step``, which have to be finite."""
    for number, value in enumerate(torch.stack(losses).tolist(), step - len(losses)):
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value} in step {number}; {out} keeps the last state before it")
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
    return smooth


def masked_loss(model: TextDiffusion, batch: Batch) -> Tensor:
    """The bound of nats per piece: the mean over rows of the mean over a row's masked pieces."""
    places = batch.places()
    x = model.hidden(batch.ids.masked_fill(batch.mask, model.mask_id)).flatten(0, 1).index_select(0, places)
    nats = F.cross_entropy(model.head(x).float(), batch.ids.flatten()[places], reduction="none")
    shares = (1 / batch.mask.sum(-1, keepdim=True)).expand_as(batch.mask).flatten()
    return (nats * shares[places]).sum() / len(batch.ids)
