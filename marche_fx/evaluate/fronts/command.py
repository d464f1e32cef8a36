"""``python -m marche_fx.evaluate.fronts``: its arguments, and what it writes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from ...models.emoji.drawing import save_pictures
from ...saving.files import write_json
from ...saving.locks import held_folder
from ..generation import Models
from ..run import wide_console
from ..settings import Settings
from ..tasks import emoji, garments
from .draw import draw, open_front, ways_of
from .front import measure
from .measured import Measured
from .plot import save_front
from .table import front_table

FEATURES, FIGURES, PICTURE = "features", "front.json", "front.png"


@dataclass(frozen=True)
class Defaults:
    """What is compared on a task when nothing else is asked for; the first way is what others are compared with.

    Attributes:
        steps: of a way that says none.
    """

    steps: int
    temperature: float
    images: int
    batch: int
    ways: tuple[str, ...]


TASKS = {
    "garments": Defaults(
        steps=32,
        temperature=0.8,
        images=500,
        batch=25,
        ways=(
            *("exact@32", "recipe:balanced", "recipe:fast", "exact@16", "exact@10"),
            *("lazymar@32", "lazymar@16", "disa@32", "disa@16", "recap@32", "recap@16"),
            "exact@12+denoising=quadratic:15",
        ),
    ),
    "emoji": Defaults(
        steps=64,
        temperature=1.0,
        images=284,
        batch=4,
        ways=(
            *(f"exact@{steps}" for steps in (64, 32, 16, 8)),
            *(f"balanced@{steps}+denoising=quadratic:25+reuse=balanced" for steps in (64, 32)),
            *(f"{rival}@{steps}" for rival in ("lazymar", "disa", "recap") for steps in (64, 32)),
        ),
    ),
}
"""The tasks by name."""


def parser() -> argparse.ArgumentParser:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    made = argparse.ArgumentParser(
        prog="python -m marche_fx.evaluate.fronts",
        description="Compare ways to draw a whole generation, on the same draws: Frechet distance against cost.",
    )
    add = made.add_argument
    add("--task", choices=TASKS, required=True, help="what is drawn")
    add("--out", type=Path, required=True, help="folder of features, which more ways and images can be added to")
    add("--ways", nargs="+", help="such as exact@16, recap@32, balanced@64+denoising=quadratic:10 or recipe:own.json")
    add("--images", type=int, help="to draw in each way")
    add("--batch", type=int, help="images to draw at once")
    add("--steps", type=int, help="decoding steps of a way that says none")
    add("--cfg", type=float, default=3.0, help="scale of guidance")
    add("--temperature", type=float, help="of the head")
    add("--seed", type=int, default=0, help="of all draws")
    add("--flops", action="store_true", help="count the FLOPs of a whole generation of each way")
    add("--time", action="store_true", help="take the time of each way in turns, in place of drawing")
    add("--time-batch", type=int, default=8, help="images at once while times are taken")
    add("--turns", type=int, default=3, help="of times")
    add("--data", type=Path, help="for emoji: what python -m marche_fx.models.emoji.pictures made")
    add("--weights", type=Path, help="other weights: a file of garments', a folder of emoji's")
    add("--device", default=str(accelerator or "cpu"), help="where to draw")
    return made


def run(given: argparse.Namespace, console: Console | None = None) -> None:
    """Draw, or take times, and write what the folder then holds to ``front.json`` and ``front.png``."""
    console, defaults, device = console or wide_console(), TASKS[given.task], torch.device(given.device)
    task = garments(given.weights, device) if given.task == "garments" else emoji(given.weights, given.data, device)
    settings = Settings(
        steps=given.steps or defaults.steps,
        cfg=given.cfg,
        temperature=defaults.temperature if given.temperature is None else given.temperature,
        seed=given.seed,
        images=given.images or defaults.images,
        batch=given.batch or defaults.batch,
    )
    ways = ways_of(given.ways or defaults.ways, task)
    with held_folder(given.out, "drawing"):
        folder = open_front(given.out / FEATURES, ways, settings, task)
        measured, models = Measured(given.out), Models(task, settings)
        if given.time:
            measured.take_times(models, ways, given.time_batch, given.turns)
        else:
            draw(folder, ways, settings, task, console)
        if given.flops:
            measured.count_flops(models, ways)
        missing = [way.spec for way in ways if not all(folder.has_batch(way, own) for own in range(settings.batches))]
        if missing:
            console.print(f"{given.out}: the times are kept; {', '.join(missing)} are yet to be drawn")
            return
        front = measured.costs_of(measure(folder, ways, settings, task))
        write_json(given.out / FIGURES, front.to_dict())
        for way in ways:
            shown = folder.read_batch(way, 0).images.float() / 127.5 - 1
            save_pictures(shown.expand(-1, 3, -1, -1), given.out / f"{way.folder}.png")
        console.print(front_table(front))
        written = [FIGURES]
        if front.cost(front.rows[0]) is not None:
            save_front(front, given.out / PICTURE)
            written.append(PICTURE)
        console.print(f"{given.out}: {', '.join(written)}")


def main() -> None:
    run(parser().parse_args())
