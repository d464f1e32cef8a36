"""Generate every batch of every point that the folder does not hold yet."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from rich.console import Console
from torch import Tensor

from ..api.transform import transform
from ..errors import ArgumentError
from ..models import MAR
from ..models.generation import Draws, Generation, Sampling, generate
from ..refresh import FullRefresh
from ..rivals import RIVALS
from ..rivals.stepped import counted_steps, draw_by
from .draws import batch_draws, settings_for
from .folder import Batch, Folder
from .heads import OWN_HEAD
from .points import Point
from .progress import progress
from .settings import Settings
from .steps import decode_nothing
from .tasks import Task

SHOWN = 20
"""So many images of a point are kept to be shown."""


def generate_missing(folder: Folder, points: Sequence[Point], settings: Settings, task: Task, console: Console) -> None:
    """The points take turns in each batch, so that what else the machine does slows all of them alike."""
    todo = [
        (batch, point) for batch in range(settings.batches) for point in points if not folder.has_batch(point, batch)
    ]
    run, models = uuid.uuid4().hex, Models(task, settings)
    total = settings.batches * len(points)
    with progress(console, "batches", total, total - len(todo)) as steps:
        for batch, point in todo:
            steps.begin(point.spec)
            draws = models.draws(point, batch)
            generation = models.generate(point, draws)
            shown = max(0, SHOWN - batch * settings.batch)
            folder.write_batch(point, batch, judged(generation, draws.labels, task, run, shown))
            steps.end(point.spec, generation.seconds)


class Models:
    """The models of the points, transformed and captured before their time is taken."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task = task
        self.model = task.mar
        self.settings = settings
        self.transformed: dict[tuple[object, ...], MAR] = {}
        self.captured: set[tuple[object, ...]] = set()

    def draws(self, point: Point, batch: int) -> Draws:
        """Those of a batch, in the order of the point's recipe."""
        return batch_draws(self.model, settings_for(point, self.settings), point.seeds, batch, self.task.labels)

    def steps(self, point: Point) -> int:
        return point.steps or self.settings.steps

    def generate(self, point: Point, draws: Draws) -> Generation:
        """The images of a point on these draws."""
        sampling = Sampling(self.steps(point), self.settings.cfg, self.settings.temperature)
        own, size = self.of(point), (*self.key(point), len(draws.labels))
        if size not in self.captured and point.policies_in(sampling.steps) is not None:
            decode_nothing(self.model, own, draws.labels, 2, self.settings.cfg)
        if size not in self.captured and reuses(point):
            # The head's denoiser is captured in its first calls.
            self.run(point, own, draws.first(2), sampling)
        self.captured.add(size)
        return self.run(point, own, draws, sampling)

    def run(self, point: Point, own: MAR, draws: Draws, sampling: Sampling) -> Generation:
        with nullcontext() if point.head.rival is None else counted_steps():
            return generate(own, draws, sampling, progress=False, limit=self.task.limit)

    def key(self, point: Point) -> tuple[object, ...]:
        """Equal for points of one model: the numbers of steps of a rival make models of their own."""
        return point.name, point.options, None if point.head.rival is None else self.steps(point)

    def of(self, point: Point) -> MAR:
        """The model of a point.

        Raises:
            ArgumentError: the settings say how all points denoise, and the point another thing.
        """
        if point.policy is None and point.head == OWN_HEAD and self.settings.denoising is None:
            return self.model
        if self.key(point) not in self.transformed:
            self.transformed[self.key(point)] = self.made(point)
        return self.transformed[self.key(point)]

    def made(self, point: Point) -> MAR:
        denoising = self.settings.denoising
        if point.recipe is not None and denoising is not None:
            raise ArgumentError("a recipe says how the head denoises: give --recipe or --denoising, not both")
        if point.recipe is not None:
            return transform(self.model, recipe=point.recipe, compile=False)
        if denoising is not None and (point.head.rival is not None or point.head.denoising is not None):
            raise ArgumentError(f"{point.spec} says how its head denoises: give it without --denoising")
        steps, head = self.steps(point), point.head
        policies = point.policies_in(steps)
        if head.rival is None:
            return transform(
                self.model,
                refresh=FullRefresh() if policies is None else policies,
                denoising=head.denoising or denoising,
                reuse=head.reuse,
                compile=False,
            )
        own = copy.copy(self.model) if policies is None else transform(self.model, refresh=policies, compile=False)
        draw_by(own, RIVALS[head.rival](self.model.diffloss.gen_diffusion), steps)
        return own


def reuses(point: Point) -> bool:
    """Whether its head's denoiser is captured."""
    recipe = point.recipe
    return point.head.reuse is not None or (recipe is not None and recipe.reuse is not None)


@torch.no_grad()
def judged(generation: Generation, labels: Tensor, task: Task, run: str, shown: int) -> Batch:
    """What to keep of a generation: features rather than pixels, of which bytes would give other features."""
    drawn = generation.images.float()
    pixels = drawn if task.decode is None else task.decode(drawn)
    return Batch(
        features=task.judge.features(pixels),
        predicted=task.judge(pixels).argmax(-1),
        labels=task.to_see(labels),
        images=((pixels[:shown] + 1) * 127.5).round().to(torch.uint8),
        seconds=generation.seconds,
        head_seconds=generation.head_seconds,
        flops_ratio=1.0 if generation.session is None else generation.session.flops_ratio,
        run=run,
    )
