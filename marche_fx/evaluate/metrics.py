"""How good generated images are, by their features in the judge, M generated ones and R real ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import frechet_distance
from ..tuning.intervals import Spread

RESAMPLES = 1000
AT_ONCE = 50
NEIGHBOURS = 3


def frechet(features: Tensor, mean: Tensor, covariance: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> Spread:
    """The Frechet distance of ``features [M, D]`` from a Gaussian ``[D]``, ``[D, D]``, with a bootstrap.

    Images are drawn again with replacement, M of them ``resamples`` times (Efron 1979). The distance is biased upwards
    at finite M, and a resample, having fewer different images, is biased further: its distances lie above the estimate,
    so their own quantiles would not hold it, and `Spread.interval` takes their spread alone. It tells what other seeds
    would give, not the bias, which points of equal M share.
    """
    features, mean, covariance = features.double(), mean.double(), covariance.double()
    estimate = frechet_distance(features.mean(0), features.T.cov(), mean, covariance)
    return Spread(estimate, resampled_distances(features, mean, covariance, resamples, seed))


def resampled_distances(features: Tensor, mean: Tensor, covariance: Tensor, resamples: int, seed: int) -> Tensor:
    """``[resamples]`` Frechet distances of resamples of ``features [M, D]``, all in float64."""
    count = len(features)
    generator = torch.Generator().manual_seed(seed)
    values, vectors = torch.linalg.eigh(covariance)
    # The root is that of the Gaussian, the same for all resamples: see `models.judge.frechet_distance`.
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    centred = features - mean
    parts = []
    for size in (AT_ONCE,) * (resamples // AT_ONCE) + (resamples % AT_ONCE,):
        drawn = torch.randint(count, (size, count), generator=generator)
        times = torch.zeros(size, count, dtype=features.dtype).scatter_add_(1, drawn, torch.ones_like(drawn).double())
        shift = times @ centred / count
        moment = torch.einsum("rm,md,me->rde", times, centred, centred) / count
        own = (moment - shift[:, :, None] * shift[:, None]) * count / (count - 1)
        trace_of_root = torch.linalg.eigvalsh(root @ own @ root).clamp(min=0).sqrt().sum(-1)
        traces = own.diagonal(dim1=1, dim2=2).sum(-1) + covariance.trace()
        parts.append(shift.square().sum(-1) + traces - 2 * trace_of_root)
    return torch.cat(parts)


@dataclass(frozen=True)
class Manifold:
    """Where images lie: a ball around each, up to the k-th nearest other one.

    Attributes:
        centres: ``[C, D]``. radii: ``[C]``.
    """

    centres: Tensor
    radii: Tensor

    @classmethod
    def of(cls, features: Tensor, neighbours: int = NEIGHBOURS) -> Manifold:
        # k + 1: the nearest of a centre is itself. Few images have fewer neighbours.
        nearest = min(neighbours + 1, len(features))
        parts = [distances(part, features).kthvalue(nearest).values for part in features.split(500)]
        return cls(features, torch.cat(parts))

    def share(self, points: Tensor) -> float:
        """Share of ``points [P, D]`` that lie in some ball."""
        inside = [(distances(part, self.centres) <= self.radii).any(1) for part in points.split(500)]
        return torch.cat(inside).float().mean().item()


def precision_and_recall(real: Manifold, generated: Manifold) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991).

    Precision is the share of generated images that lie where real ones do, recall the share of real images that lie
    where generated ones do. Recall grows with the number of generated images, so compare it at equal M.
    """
    return real.share(generated.centres), generated.share(real.centres)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """``[P, D], [C, D] -> [P, C]``; without the product of matrices, in which small distances round."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def label_accuracy(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels).float().mean().item()
