"""What ``marche-fx sample`` does with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ..api.recipes import recipe_for
from ..api.transform import transform
from ..bench.user_model import found as function_of
from ..bench.user_model import returned
from ..denoising import parse_denoising
from ..errors import ArgumentError
from ..evaluate import parse_point
from ..evaluate.run import wide_console
from ..models.devices import device_of
from ..refresh import FullRefresh
from .bundled import Subject, bundled_subject
from .labels import BALANCED, Labels
from .ranks import local_device
from .run import Sampled, sample


@dataclass(frozen=True)
class Wanted:
    """What to sample, and how.

    Attributes:
        model: ``fashion``, ``emoji`` or ``module:function``. recipe, policy, denoising: of `transform`, as words.
        told: what the loop is told, as in `recipes.loop`, where the caller says it. device: ``cpu`` or ``cuda``; the
            one of this process when omitted.

    Raises:
        ArgumentError: options contradict each other.
    """

    model: str = "fashion"
    weights: Path | None = None
    recipe: str | None = None
    policy: str | None = None
    denoising: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    compile: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        if self.recipe is not None and (self.policy is not None or self.denoising is not None):
            raise ArgumentError("a recipe says policy and denoising: give --recipe, or --policy and --denoising")
        if self.is_users and (self.told or self.weights is not None):
            raise ArgumentError(
                f"--steps, --cfg, --temperature, --order and --weights are of the models that come along; {self.model} "
                "says them itself"
            )

    @property
    def is_users(self) -> bool:
        return ":" in self.model


def run_sample(
    wanted: Wanted,
    count: int,
    out: Path,
    *,
    batch: int,
    labels: str,
    seed: int,
    format: str,
    raw: bool,
    adm: bool,
    frechet: bool,
    console: Console | None = None,
) -> Sampled:
    """Sample what is wanted, and print where it is and how fast it was."""
    console = console or wide_console()
    subject = subject_of(wanted)
    model = transformed(subject, wanted)
    judge = subject.judge if frechet else None
    found = sample(
        model,
        subject.generate,
        count,
        out,
        batch=batch,
        labels=labels_from(labels, count),
        classes=getattr(subject.model, "num_classes", None),
        seed=seed,
        format=format,
        raw=raw,
        features=None if judge is None else judge.all_features,
        reference=None if judge is None else (judge.feature_mean, judge.feature_covariance),
        adm=adm,
        settings=subject.settings,
        console=console,
    )
    if found.rank:
        return found
    told = f"{found.folder}: {found.count} images, {sum(found.made)} of them made now"
    if sum(found.made):
        told += f", {found.images_per_second:.1f} images/s"
    if found.frechet is not None:
        told += f"; Frechet distance from the test set {found.frechet:.3f}"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    return found


def subject_of(wanted: Wanted) -> Subject:
    """The model that is wanted, on its device."""
    device = local_device() if wanted.device is None else device_of(wanted.device)
    if not wanted.is_users:
        return bundled_subject(wanted.model, wanted.weights, wanted.recipe, wanted.told, device)
    model, run, options = returned(wanted.model, function_of(wanted.model))
    # Called with a share beside the model.
    generate: Any = run
    own = {} if wanted.recipe is None else {"recipe": recipe_for(model, wanted.recipe)}
    return Subject(model.to(device).eval(), generate, options={**options, **own})


def transformed(subject: Subject, wanted: Wanted) -> nn.Module:
    """The model as it is sampled: itself where neither a recipe nor a policy nor denoising is asked for."""
    policy = None if wanted.policy is None else parse_point(wanted.policy)
    if policy is not None and policy.steps is not None:
        raise ArgumentError(f"{wanted.policy} says decoding steps: give these by --steps")
    denoising = None if wanted.denoising is None else parse_denoising(wanted.denoising)
    options = dict(subject.options)
    if wanted.recipe is None:
        if denoising is None and (policy is None or policy.policy is None):
            return subject.model
        refresh = FullRefresh() if policy is None or policy.policy is None else policy.policy
        options |= {"refresh": refresh, "denoising": denoising}
    return transform(subject.model, compile=wanted.compile, **options)


def labels_from(word: str, count: int) -> Labels:
    """``balanced``, ``none``, ``3,7`` in turn, or those of a file, one a line.

    Raises:
        ArgumentError: it is none of these, or the file cannot be read.
    """
    if word == BALANCED:
        return word
    if word == "none":
        return None
    try:
        if all(part.strip().isdecimal() for part in word.split(",")):
            return torch.tensor([int(part) for part in word.split(",")]).repeat(count)[:count]
        return [int(line) for line in Path(word).read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"labels must be {BALANCED}, none, numbers such as 3,7, or a file with a number a line, got {word!r}: "
            f"{error}"
        ) from error
