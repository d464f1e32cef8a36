"""Which decoding of MaskGIT's the judge likes best: guidance and the noise on the choice of codes to keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch

from ..fashion import CLASSES
from ..judge import Judge
from .decoding import Decoding
from .garments import TokenGarments

CANDIDATES = tuple(
    Decoding(guidance=guidance, choice_temperature=noise)
    for noise, guidance in product((4.5, 9.0, 2.0, 18.0, 1.0), (0.0, 1.0, 2.0, 0.5))
)


@dataclass(frozen=True)
class Judged:
    """The Frechet distance of what was generated, and the share of it that the judge gives its label."""

    decoding: Decoding
    distance: float
    accuracy: float


def judge_decodings(
    garments: TokenGarments, judge: Judge, per_class: int, candidates: Iterable[Decoding] = CANDIDATES
) -> Iterator[Judged]:
    """Judge each of the candidates by so many images of each class, from the same seed."""
    device = next(garments.parameters()).device
    labels = torch.arange(len(CLASSES), device=device).repeat(per_class)
    for decoding in candidates:
        generator = torch.Generator(device).manual_seed(0)
        images = torch.cat([garments.sample(part, decoding, generator=generator) for part in labels.split(500)])
        yield Judged(decoding, judge.frechet_distance(images), judge.accuracy(images, labels))
