"""Tasks whose images are drawn in milliseconds."""

from __future__ import annotations

import torch

from marche_fx.evaluate.settings import Settings
from marche_fx.evaluate.tasks import Task
from marche_fx.models import load_judge
from tests.evaluate.tiny import tiny_garments

SETTINGS = Settings(steps=4, cfg=2.0, temperature=1.0, images=6, batch=3)


def task() -> Task:
    return Task(tiny_garments(num_sampling_steps=50), load_judge())


def latents() -> Task:
    """The same, drawn as latents of half their value and of labels that are another thing to the judge."""
    own = task()
    return Task(own.mar, own.judge, torch.tensor([7, 7, 1, 1, 0, 0]), torch.arange(9, -1, -1), lambda drawn: drawn / 2)
