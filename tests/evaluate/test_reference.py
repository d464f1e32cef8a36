"""The judge's features that ship with it."""

from __future__ import annotations

from pathlib import Path

import torch

from marche_fx.models import load_judge
from marche_fx.models.bundled import WEIGHTS
from marche_fx.models.dataset import to_pixels
from marche_fx.models.fashion import Fashion
from marche_fx.models.judge import FEATURES_FILE, load_features, save_features
from tests.models.test_judge import GARMENTS, IMAGES


def test_the_shipped_features_have_the_judges_statistics() -> None:
    features, judge = load_features(WEIGHTS / FEATURES_FILE), load_judge()
    assert features.shape == (4000, 64)
    assert features.dtype == torch.float32
    error = (judge.feature_covariance.diagonal() / len(features)).sqrt() + 1e-3
    assert ((features.mean(0) - judge.feature_mean) / error).abs().max() < 5
    assert (WEIGHTS / FEATURES_FILE).stat().st_size < 600_000


def test_features_of_images_are_written_as_the_judge_gives_them(tmp_path: Path) -> None:
    judge = load_judge()
    test = Fashion(torch.from_numpy(GARMENTS["images"]), torch.from_numpy(GARMENTS["labels"]))
    save_features(judge, test, tmp_path / FEATURES_FILE)
    with torch.no_grad():
        expected = judge.features(to_pixels(test.images))
    torch.testing.assert_close(load_features(tmp_path / FEATURES_FILE), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(to_pixels(test.images), IMAGES)
