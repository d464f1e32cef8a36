"""What is drawn and judged: garments, or emoji as latents that an autoencoder decodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..models import MAR, Judge, load_checkpoint, load_judge
from ..models.bundled import EMOJI_WEIGHTS, garment_model
from ..models.dataset import to_pixels
from ..models.emoji.autoencoder import AUTOENCODER_FILE, Autoencoder
from ..models.emoji.autoencoding import reconstruction
from ..models.emoji.dataset import Emoji, load_emoji
from ..models.emoji.drawing import labelled_as, shuffled
from ..models.emoji.judge import emoji_judge
from ..models.judge import JUDGE_FILE
from ..models.presets import mar_emoji
from ..models.train import WEIGHTS_FILE
from .frechet_judge import FrechetJudge


@dataclass(frozen=True)
class Task:
    """A model whose images a judge knows.

    Attributes:
        labels: ``[M]``, of images that are drawn; the classes in turn when omitted.
        classes: ``[L]``, what the judge should see of each label; the label itself when omitted.
        decode: makes images ``[B, c, H, W]`` of latents; None where images are drawn.
        references: measures images that no model drew, by name.
    """

    mar: MAR
    judge: Judge
    labels: Tensor | None = None
    classes: Tensor | None = None
    decode: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    references: Callable[[], dict[str, Any]] = field(default=dict, repr=False)

    @property
    def models(self) -> dict[str, nn.Module]:
        """What its images come from, and who judges them, by name."""
        found: dict[str, nn.Module] = {"model": self.mar, "judge": self.judge}
        return found

    @property
    def limit(self) -> float | None:
        """Largest absolute value of what the model draws, where that is no latents."""
        return 1.0 if self.decode is None else None

    def to_see(self, labels: Tensor) -> Tensor:
        """What the judge should see of labels ``[B]``."""
        return labels if self.classes is None else self.classes.to(labels.device)[labels]


def garments(weights: Path | None, device: torch.device) -> Task:
    """The bundled MAR of garments, or one of other weights."""
    return Task(garment_model(weights).to(device), load_judge().to(device))


def emoji(weights: Path | None, data: Path | None, device: torch.device) -> Task:
    """The bundled MAR of emoji, or one of other weights, which draws the labels of the held-out pictures.

    Args:
        weights: folder of a MAR, an autoencoder and a judge. data: file of pictures.

    Raises:
        ArgumentError: no pictures were given.
    """
    if data is None:
        raise ArgumentError(
            "emoji are drawn of the held-out pictures' labels: give the file that python -m "
            "marche_fx.models.emoji.pictures made, by --data"
        )
    folder, known = weights or EMOJI_WEIGHTS, load_emoji(data)
    mar = load_checkpoint(mar_emoji(), folder / WEIGHTS_FILE).to(device).eval()
    autoencoder = load_checkpoint(Autoencoder(), folder / AUTOENCODER_FILE).to(device).eval()
    judge = load_checkpoint(emoji_judge(), folder / JUDGE_FILE).to(device).eval()
    labels = shuffled(known.held_out, len(known.held_out)).labels
    return Task(
        mar,
        judge,
        labels,
        known.group_of,
        autoencoder.decode,
        lambda: references(judge, autoencoder, known, labels),
    )


def references(judge: Judge, autoencoder: Autoencoder, known: Emoji, labels: Tensor) -> dict[str, Any]:
    """What pictures are like that no model drew: those seen of the same ``labels`` ``[M]``, and those held out.

    Held-out pictures that the autoencoder decodes tell what it costs; as they are, their distance is 0.
    """
    device = judge.feature_mean.device
    held_out = known.in_groups(known.held_out).to(device)
    seen = known.in_groups(labelled_as(known.training, labels)).to(device)
    decoded = reconstruction(autoencoder, held_out.images)
    judged_by = FrechetJudge.of(judge)
    distances = {
        name: asdict(judged_by.spread([judged_by.statistics(pictures).cpu()]).interval)
        for name, pictures in (("pictures_seen", to_pixels(seen.images)), ("held_out_reconstructed", decoded))
    }
    accuracies = {
        f"{name}_label_accuracy": judge.accuracy(to_pixels(own.images), own.labels)
        for name, own in (("pictures_seen", seen), ("held_out", held_out))
    }
    return distances | accuracies
