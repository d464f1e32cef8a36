"""What the study of garments finds: a row for each loop and variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models import Judge
from ...models.tokens import ImageTokenizer
from ...tuning.intervals import Interval, Spread
from ..metrics import frechet
from ..study import ORIGINAL, StudyRow
from ..study.figures import answers_of, interval_of, shared_figures
from ..study.lines import Line


@dataclass(frozen=True, kw_only=True)
class TokenRow(StudyRow):
    """A variant in a loop, over so many images.

    Attributes:
        labels: share of the images to which the judge gives their label.
        frechet: distance of the judge's features from the test set's, see `metrics.frechet`.
        frechet_over_original: less that of the original's images with the same noise.
    """

    images: int
    labels: Interval
    frechet: Interval
    frechet_over_original: Interval


@dataclass(frozen=True)
class Judged:
    """Whether each image has its label, ``[M]``, and the Frechet distance of all."""

    right: Tensor
    distance: Spread


def token_rows(
    lines: Mapping[str, Sequence[Line]], labels: Tensor, tokenizer: ImageTokenizer, judge: Judge
) -> list[TokenRow]:
    """Of each variant's lines, the original's among them, for the same batches of ``labels [M]``."""
    original = lines[ORIGINAL]
    exact = judge_codes(answers_of(original), labels, tokenizer, judge)
    rows = []
    for own in lines.values():
        judged = judge_codes(answers_of(own), labels, tokenizer, judge)
        row = TokenRow(
            **shared_figures(own, original),
            images=len(labels),
            labels=interval_of(judged.right.double()),
            frechet=judged.distance.interval,
            frechet_over_original=(judged.distance - exact.distance).interval,
        )
        rows.append(row)
    return rows


@torch.no_grad()
def judge_codes(codes: Tensor, labels: Tensor, tokenizer: ImageTokenizer, judge: Judge) -> Judged:
    """Of codes ``[M, N]`` of images of the classes ``labels [M]``."""
    features = judge.all_features(tokenizer.decode(codes))
    right = judge.classify(features).argmax(-1) == labels
    return Judged(right, frechet(features, judge.feature_mean, judge.feature_covariance))
