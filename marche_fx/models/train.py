"""Training of the bundled MAR: resumable after a kill at any moment, at the cost of one checkpoint interval."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from ..errors import TrainingError
from .fashion import Fashion, to_pixels
from .training_state import prepare_folder, resume, save

Model = TypeVar("Model", bound=nn.Module)

WEIGHTS_FILE = "model_ema.safetensors"


@dataclass(frozen=True)
class Recipe:
    """What a run is trained with. ``epochs`` may grow on resuming, the rest may not change."""

    epochs: float = 5.6
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 0.02
    clip: float = 3.0
    ema: float = 0.999
    seed: int = 0


def train(
    model: Model,
    dataset: Fashion,
    out: Path,
    recipe: Recipe,
    *,
    bf16: bool = False,
    compile: bool = False,
    checkpoint_seconds: float = 120.0,
) -> Model:
    """Minimise ``model(images, labels)`` over ``dataset``; return the model with the averaged (EMA) weights.

    The state is written to ``out / training.pt`` every ``checkpoint_seconds`` and at the end; a run that finds one
    there goes on from it, to the same weights, bit for bit, as if it had never stopped. Where it is damaged the state
    before it, which is kept, is used, and a warning says so.

    Raises:
        TrainingError: ``out`` cannot be written, or holds a damaged state or that of another model or recipe; the
            images are fewer than a batch; the loss is no longer finite.
    """
    prepare_folder(out)
    if len(dataset) < recipe.batch:
        raise TrainingError(f"{len(dataset)} images do not fill one batch of {recipe.batch}")
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
    )
    torch.manual_seed(recipe.seed)
    step = resume(out, model, averaged, optimizer, asdict(recipe), may_change=("epochs",))
    total = math.ceil(recipe.epochs * len(dataset) / recipe.batch)
    if compile:
        for block in repeated_blocks(model):
            block.compile(dynamic=True)

    model.train()
    device_type = next(model.parameters()).device.type
    saved = time.monotonic()
    smooth_loss = math.nan
    with progress_bar() as progress:
        task = progress.add_task("training", total=total * recipe.batch, completed=step * recipe.batch, loss=0, rate=0)
        started, first = time.monotonic(), step
        for images, labels in batches(dataset, recipe, step, total):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * learning_rate_factor(step, total, recipe.warmup)
            with torch.autocast(device_type, torch.bfloat16, enabled=bf16):
                loss = model(to_pixels(images), labels)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(f"the loss became {value} in step {step}; {out} keeps the last state before it")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            averaged.update_parameters(model)
            step += 1
            smooth_loss = value if math.isnan(smooth_loss) else 0.98 * smooth_loss + 0.02 * value
            rate = (step - first) * recipe.batch / (time.monotonic() - started)
            progress.update(task, completed=step * recipe.batch, loss=smooth_loss, rate=rate)
            if time.monotonic() - saved > checkpoint_seconds:
                save(out, model, averaged, optimizer, asdict(recipe), step)
                saved = time.monotonic()
                if progress.disable:
                    print(f"step {step} of {total}: loss {smooth_loss:.4f}, {rate:.0f} images/s", flush=True)
    save(out, model, averaged, optimizer, asdict(recipe), step)
    return cast(Model, averaged.module).eval()


def repeated_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The members of every ``ModuleList``: compiling these costs far less than compiling the whole model."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            yield from module


def batches(dataset: Fashion, recipe: Recipe, step: int, total: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches ``step .. total - 1`` of an endless stream of shuffled epochs, the same whenever it is resumed."""
    per_epoch = len(dataset) // recipe.batch
    epoch, order = -1, torch.empty(0)
    for number in range(step, total):
        if number // per_epoch != epoch:
            epoch = number // per_epoch
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(recipe.seed + epoch))
        begin = number % per_epoch * recipe.batch
        chosen = order[begin : begin + recipe.batch]
        yield dataset.images[chosen], dataset.labels[chosen]


def learning_rate_factor(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def progress_bar() -> Progress:
    """On a terminal only: elsewhere a line is printed at each checkpoint."""
    console = Console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} images/s"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
