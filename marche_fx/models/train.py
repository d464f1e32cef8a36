"""Training on images: resumable after a kill at any moment, at the cost of one checkpoint interval."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import TrainingError
from ..saving.locks import alone
from .dataset import LabelledImages, to_pixels
from .training_state import resume, save, training_folder

Model = TypeVar("Model", bound=nn.Module)
Tensors = tuple[Tensor, ...] | list[Tensor]

WEIGHTS_FILE = "model_ema.safetensors"
RECENT_STEPS = 200
"""Of so many steps the rate is measured, so that what compiling took is soon forgotten."""


@dataclass(frozen=True)
class Recipe:
    """What a run is trained with. ``epochs`` may grow on resuming, the rest may not change.

    Attributes:
        ema: of the averaged weights the share that is kept in each step.
        ema_power: where given, the weights of step t enter the average as t to this power instead: however long the run
            is, it reaches over the last ``1 / ema_power`` of it or so (Karras et al. 2024, arXiv 2312.02696).
    """

    epochs: float = 5.6
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 0.02
    clip: float = 3.0
    ema: float = 0.999
    ema_power: float | None = None
    seed: int = 0


@alone("training", training_folder)
def train(
    model: Model,
    dataset: LabelledImages,
    out: Path,
    recipe: Recipe,
    *,
    bf16: bool = False,
    compile: bool = False,
    checkpoint_seconds: float = 120.0,
    minutes: float = math.inf,
    look_every: int = 1,
    prepare: Callable[[Tensor], Tensor] = to_pixels,
    keep: Callable[[Model], None] = lambda averaged: None,
) -> Model:
    """Minimise ``model(images, labels)`` over ``dataset``; return the model with the averaged (EMA) weights.

    The model is given what ``prepare`` makes of the data set's images. Everything is where the model is, the data set
    too. With ``minutes`` this call ends after so many, however few epochs that makes, and the learning rate falls in
    time. The loss is looked at every ``look_every`` steps: on an accelerator each look waits for it.

    The state is written to ``out / training.pt`` every ``checkpoint_seconds`` and at the end, each time followed by
    ``keep`` of the averaged model. A run that finds a state there goes on from it, without ``minutes`` to the same
    weights, bit for bit, as if it had never stopped. Where it is damaged the state before it, which is kept, is used,
    and a warning says so.

    Raises:
        TrainingError: ``out`` cannot be written, or holds a damaged state or that of another model or recipe; the
            images are fewer than a batch; the loss is no longer finite.
        ArgumentError: another process is at work in ``out``.
    """
    if len(dataset) < recipe.batch:
        raise TrainingError(f"{len(dataset)} images do not fill one batch of {recipe.batch}")
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    averaged = averaged_copy(model, recipe)
    torch.manual_seed(recipe.seed)
    step = resume(out, model, averaged, optimizer, asdict(recipe), may_change=("epochs",))
    if compile:
        for block in repeated_blocks(model):
            block.compile(dynamic=True)

    model.train()
    device = next(model.parameters()).device
    stream = batches(dataset.to(device), recipe, step)
    pace = Pace(recipe.epochs * len(dataset) / recipe.batch, minutes)
    losses = LossWatch(out)
    saved = time.monotonic()
    with progress_bar() as progress:
        task = progress.add_task("training", completed=step * recipe.batch, loss=0, rate=0)
        while step < (total := pace.total(step)):
            images, labels = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * learning_rate_factor(step, total, recipe.warmup)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = model(prepare(images), labels)
            losses.add(step, loss)
            if step % look_every == 0:
                losses.look()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            averaged.update_parameters(model)
            step += 1
            rate = pace.rate * recipe.batch
            completed, expected = step * recipe.batch, total * recipe.batch
            progress.update(task, completed=completed, total=expected, loss=losses.smooth, rate=rate)
            if time.monotonic() - saved > checkpoint_seconds:
                losses.look()
                save(out, model, averaged, optimizer, asdict(recipe), step)
                keep(cast(Model, averaged.module))
                saved = time.monotonic()
                if progress.disable:
                    print(f"step {step} of {total}: loss {losses.smooth:.4f}, {rate:.0f} images/s", flush=True)
    losses.look()
    save(out, model, averaged, optimizer, asdict(recipe), step)
    keep(cast(Model, averaged.module))
    return cast(Model, averaged.module).eval()


def averaged_copy(model: nn.Module, recipe: Recipe) -> AveragedModel:
    """A copy of ``model`` that holds the average of its weights over the steps, as the recipe weighs these."""
    power = recipe.ema_power
    if power is None:
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))

    def average(averages: Tensors, weights: Tensors, _: Tensor | int) -> None:
        # Counted on the host: the count that is handed over lies on the device, and would be waited for.
        step = int(copy.n_averaged) + 1
        torch._foreach_lerp_(averages, weights, 1 - (1 - 1 / step) ** (power + 1))

    copy = AveragedModel(model, multi_avg_fn=torch.no_grad()(average))
    return copy


class Pace:
    """How many steps a run will have had: ``steps``, or as many as fit into ``minutes`` at the rate of late."""

    def __init__(self, steps: float, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.steps = steps
        self.clock = clock
        self.end = clock() + 60 * minutes
        self.times: deque[float] = deque(maxlen=RECENT_STEPS)

    @property
    def rate(self) -> float:
        """Steps in a second."""
        seconds = self.times[-1] - self.times[0]
        return (len(self.times) - 1) / seconds if seconds > 0 else math.nan

    def total(self, step: int) -> int:
        """The run's last step, as expected before step ``step``; to be asked once a step."""
        self.times.append(self.clock())
        remaining = self.end - self.times[-1]
        if math.isinf(remaining):
            return math.ceil(self.steps)
        if remaining <= 0:
            return step
        fitting = 1 if math.isnan(self.rate) else max(1, math.ceil(remaining * self.rate))
        return math.ceil(min(self.steps, step + fitting))


class LossWatch:
    """The losses of a run, brought from the device some at a time."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.unseen: list[tuple[int, Tensor]] = []
        self.smooth = math.nan

    def add(self, step: int, loss: Tensor) -> None:
        self.unseen.append((step, loss.detach()))

    def look(self) -> None:
        """Average the losses added since the last look.

        Raises:
            TrainingError: one of them is not finite.
        """
        if not self.unseen:
            return
        steps, losses = zip(*self.unseen, strict=True)
        self.unseen.clear()
        for step, value in zip(steps, torch.stack(losses).tolist(), strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} in step {step}; {self.out} keeps the last state before it"
                )
            self.smooth = value if math.isnan(self.smooth) else 0.98 * self.smooth + 0.02 * value


def repeated_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The members of every ``ModuleList``: compiling these costs far less than compiling the whole model."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            yield from module


def batches(dataset: LabelledImages, recipe: Recipe, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches ``step, step + 1, ...`` of an endless stream of shuffled epochs, the same whenever it is resumed."""
    per_epoch = len(dataset) // recipe.batch
    epoch, order = -1, torch.empty(0)
    for number in itertools.count(step):
        if number // per_epoch != epoch:
            epoch = number // per_epoch
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(recipe.seed + epoch))
            order = order.to(dataset.images.device)
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
