"""The judge of generated images: a small classifier, and the Frechet distance in its features.

Source of the distance: Heusel et al. 2017 (arXiv 1706.08500), with this classifier's features for Inception's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..saving.files import replacing
from .checkpoint import as_safetensors, read_checkpoint
from .dataset import LabelledImages, to_pixels
from .fashion import CLASSES
from .train import Recipe, train

JUDGE_FILE = "judge.safetensors"
FEATURES_FILE = "judge_features.safetensors"
KEPT_FEATURES = 4000
"""Of so many test images the features are kept, for measures that a mean and a covariance do not give."""

RECIPE = Recipe(epochs=16, batch=128, learning_rate=3e-3, warmup=200, weight_decay=0.05, ema=0.995)


class Judge(nn.Module):
    """A few convolutions, D features, K classes: pixels ``[M, c, size, size]`` in -1..1 to logits ``[M, K]``.

    It carries the mean and covariance that its features have over the test set, to which generated images are compared.
    Without arguments it is the judge of garments.

    Args:
        channels: of each convolution, after which the image is halved. width: D. colours: c. classes: K.
    """

    feature_mean: Tensor
    feature_covariance: Tensor

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        width: int = 64,
        *,
        colours: int = 1,
        size: int = 28,
        classes: int = len(CLASSES),
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(stage(*pair) for pair in zip((colours, *channels), channels, strict=False)))
        self.project = nn.Linear(channels[-1] * (size >> len(channels)) ** 2, width)
        self.drop = nn.Dropout(0.3)
        self.classify = nn.Linear(width, classes)
        self.register_buffer("feature_mean", torch.zeros(width))
        self.register_buffer("feature_covariance", torch.eye(width))

    def features(self, images: Tensor) -> Tensor:
        """The penultimate layer: ``[M, c, size, size] -> [M, D]``."""
        return F.relu(self.project(self.stages(images).flatten(1)))

    @torch.no_grad()
    def all_features(self, images: Tensor) -> Tensor:
        """The features of any number of images, some at a time."""
        return torch.cat([self.features(part) for part in images.split(500)])

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.drop(self.features(images)))

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images ``[M, c, size, size]`` that the judge gives their label ``[M]``."""
        predicted = torch.cat([self(part).argmax(-1) for part in images.split(500)])
        return (predicted == labels).float().mean().item()

    @torch.no_grad()
    def feature_statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[D]`` and covariance ``[D, D]`` of the features of images ``[M, c, size, size]``, in float64."""
        features = self.all_features(images).double()
        return features.mean(0), features.T.cov()

    def frechet_distance(self, images: Tensor) -> float:
        """Distance of images ``[M, c, size, size]`` from the test set; biased upwards for small M: compare equal M."""
        reference = self.feature_mean.double(), self.feature_covariance.double()
        return frechet_distance(*self.feature_statistics(images), *reference)


def stage(inputs: int, outputs: int) -> nn.Sequential:
    """Convolve, normalise, rectify and halve the image."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` of Gaussians with means ``[D]``, covariances ``[D, D]``."""
    values, vectors = torch.linalg.eigh(covariance_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # C_a C_b has the eigenvalues of the symmetric root_a C_b root_a.
    trace_of_root = torch.linalg.eigvalsh(root_a @ covariance_b @ root_a).clamp(min=0).sqrt().sum()
    return (((mean_a - mean_b) ** 2).sum() + covariance_a.trace() + covariance_b.trace() - 2 * trace_of_root).item()


class JudgeLoss(nn.Module):
    """What training minimises: cross-entropy of images shifted by up to two pixels and mirrored at random.

    Pixels shifted in have the value ``background``.
    """

    def __init__(self, judge: Judge, background: float = -1.0) -> None:
        super().__init__()
        self.judge = judge
        self.background = background

    def augment(self, images: Tensor) -> Tensor:
        down, right = torch.randint(5, (2,)).tolist()
        height, width = images.shape[2:]
        images = F.pad(images, (2, 2, 2, 2), value=self.background)[..., down : down + height, right : right + width]
        return torch.where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, images.flip(-1), images)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.judge(self.augment(images)), labels, label_smoothing=0.05)


def train_judge(
    training: LabelledImages,
    test: LabelledImages,
    out: Path,
    recipe: Recipe = RECIPE,
    *,
    loss: JudgeLoss | None = None,
    **options: Any,
) -> Judge:
    """Train a judge in the folder ``out``, resumable, and take its feature statistics over the images of ``test``.

    The features of some of these are written beside it, see `save_features`. ``loss`` holds another judge than that of
    garments; ``options`` are those of `train`.
    """
    torch.manual_seed(recipe.seed)
    judge = train(JudgeLoss(Judge()) if loss is None else loss, training, out, recipe, **options).judge
    test = test.to(judge.feature_mean.device)
    judge.half().float()  # The statistics belong to the weights as they are stored.
    mean, covariance = judge.feature_statistics(to_pixels(test.images))
    judge.feature_mean.copy_(mean)
    judge.feature_covariance.copy_(covariance)
    save_features(judge, test, out / FEATURES_FILE)
    return judge


def save_features(judge: Judge, test: LabelledImages, path: Path) -> None:
    """Write the judge's features of the first `KEPT_FEATURES` images of ``test`` as float16."""
    features = judge.all_features(to_pixels(test.images[:KEPT_FEATURES]))
    with replacing(path) as partial:
        partial.write_bytes(as_safetensors({"features": features.half()}))


def load_features(path: Path) -> Tensor:
    """``[R, 64]`` float32, what `save_features` wrote."""
    return read_checkpoint(path)["features"].float()
