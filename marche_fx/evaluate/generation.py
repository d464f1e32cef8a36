"""Generate every batch of every point that the folder does not hold yet."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import torch
from rich.console import Console
from torch import Tensor

from ..api.transform import transform
from ..errors import ArgumentError
from ..models import MAR, Judge
from ..models.generation import Generation, Sampling, generate
from ..refresh import FullRefresh
from .draws import batch_draws, settings_for
from .folder import Batch, Folder
from .points import Point
from .progress import progress
from .settings import Settings
from .steps import decode_nothing

SHOWN = 20
"""So many images of a point are kept to be shown."""


def generate_missing(
    folder: Folder, points: Sequence[Point], settings: Settings, model: MAR, judge: Judge, console: Console
) -> None:
    """The points take turns in each batch, so that what else the machine does slows all of them alike."""
    todo = [
        (batch, point) for batch in range(settings.batches) for point in points if not folder.has_batch(point, batch)
    ]
    run, models = uuid.uuid4().hex, Models(model, settings)
    total = settings.batches * len(points)
    with progress(console, "batches", total, total - len(todo)) as steps:
        for batch, point in todo:
            steps.begin(point.spec)
            generation = models.generate(point, batch)
            draws = batch_draws(model, settings_for(point, settings), point.seeds, batch)
            shown = max(0, SHOWN - batch * settings.batch)
            folder.write_batch(point, batch, judged(generation, draws.labels, judge, run, shown))
            steps.end(point.spec, generation.seconds)


class Models:
    """The models of the points, transformed and captured before their time is taken."""

    def __init__(self, model: MAR, settings: Settings) -> None:
        self.model = model
        self.settings = settings
        self.transformed: dict[str, MAR] = {}
        self.captured: set[tuple[str, int]] = set()

    def generate(self, point: Point, batch: int) -> Generation:
        """The images of a batch of a point."""
        settings = settings_for(point, self.settings)
        draws = batch_draws(self.model, settings, point.seeds, batch)
        sampling = Sampling(point.steps or settings.steps, settings.cfg, settings.temperature)
        own, size = self.of(point), (point.name, len(draws.labels))
        if own is not self.model and size not in self.captured:
            decode_nothing(self.model, own, draws.labels, 2, settings.cfg)
            if point.recipe is not None and point.recipe.reuse is not None:
                # The head's denoiser is captured in its first calls.
                generate(own, draws.first(2), sampling, progress=False)
            self.captured.add(size)
        return generate(own, draws, sampling, progress=False)

    def of(self, point: Point) -> MAR:
        if point.policy is None and self.settings.denoising is None:
            return self.model
        if point.recipe is not None and self.settings.denoising is not None:
            raise ArgumentError("a recipe says how the head denoises: give --recipe or --denoising, not both")
        if point.recipe is not None and point.name not in self.transformed:
            self.transformed[point.name] = transform(self.model, recipe=point.recipe, compile=False)
        if point.name not in self.transformed:
            self.transformed[point.name] = transform(
                self.model,
                refresh=FullRefresh() if point.policy is None else point.policy,
                denoising=self.settings.denoising,
                compile=False,
            )
        return self.transformed[point.name]


@torch.no_grad()
def judged(generation: Generation, labels: Tensor, judge: Judge, run: str, shown: int) -> Batch:
    """What to keep of a generation: features rather than pixels, of which bytes would give other features."""
    pixels = generation.images.float()
    return Batch(
        features=judge.features(pixels),
        predicted=judge(pixels).argmax(-1),
        labels=labels,
        images=((pixels[:shown] + 1) * 127.5).round().to(torch.uint8),
        seconds=generation.seconds,
        head_seconds=generation.head_seconds,
        flops_ratio=1.0 if generation.session is None else generation.session.flops_ratio,
        run=run,
    )
