"""Mean and covariance, of parts and of all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marche_fx.models import load_judge
from marche_fx.sampling import Moments


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5), st.floats(-1e3, 1e3))
def test_parts_merged_are_the_whole(sizes: list[int], width: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(sum(sizes))
    features = torch.randn(sum(sizes) + 1, width, generator=generator).double() + offset
    found = Moments.merged(map(Moments.of, features.split([*sizes, 1])))
    assert found.count == len(features)
    np.testing.assert_allclose(found.mean, features.numpy().mean(0), atol=1e-9)
    np.testing.assert_allclose(
        found.covariance, np.cov(features.numpy(), rowvar=False).reshape(width, width), atol=1e-8
    )


def test_the_distance_is_the_judges() -> None:
    judge = load_judge()
    images = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = judge.all_features(images)
    found = Moments.merged(map(Moments.of, features.split(5)))
    distance = found.frechet_distance(judge.feature_mean, judge.feature_covariance)
    assert distance == pytest.approx(judge.frechet_distance(images), rel=1e-9)
