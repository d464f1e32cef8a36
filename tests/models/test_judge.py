from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from marche_fx.models.bundled import WEIGHTS, load_judge
from marche_fx.models.dataset import to_pixels
from marche_fx.models.fashion import CLASSES, Fashion
from marche_fx.models.judge import Judge, JudgeLoss, frechet_distance, train_judge
from marche_fx.models.train import Recipe

GARMENTS = np.load(Path(__file__).parent.parent / "data" / "garments.npz")
IMAGES, LABELS = to_pixels(torch.from_numpy(GARMENTS["images"])), torch.from_numpy(GARMENTS["labels"])
seeds = st.integers(0, 10_000)


def random_gaussian(seed: int, width: int, rank: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    factor = torch.randn(width, rank, generator=draws, dtype=torch.float64)
    return torch.randn(width, generator=draws, dtype=torch.float64), factor @ factor.T


# The distance


@given(seed=seeds, width=st.integers(1, 6))
def test_the_distance_is_that_of_the_published_formula(seed: int, width: int) -> None:
    mean_a, covariance_a = random_gaussian(seed, width, width)
    mean_b, covariance_b = random_gaussian(seed + 1, width, width)
    root = linalg.sqrtm(covariance_a.numpy() @ covariance_b.numpy())
    trace = np.trace(covariance_a.numpy() + covariance_b.numpy() - 2 * np.real(root))
    expected = float(((mean_a - mean_b) ** 2).sum()) + float(trace)
    found = frechet_distance(mean_a, covariance_a, mean_b, covariance_b)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(-3, 3), st.floats(0, 3))
def test_in_one_dimension_it_is_the_distance_of_means_and_of_scales(m: float, s: float, n: float, r: float) -> None:
    numbers = (torch.tensor(value, dtype=torch.float64) for value in ([m], [[s * s]], [n], [[r * r]]))
    assert frechet_distance(*numbers) == pytest.approx((m - n) ** 2 + (s - r) ** 2, abs=1e-6)


@given(seed=seeds, rank=st.integers(1, 5))
def test_it_is_zero_from_a_gaussian_to_itself_and_symmetric(seed: int, rank: int) -> None:
    a, b = random_gaussian(seed, 5, rank), random_gaussian(seed + 1, 5, 5)
    assert frechet_distance(*a, *a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(*a, *b) == pytest.approx(frechet_distance(*b, *a), rel=1e-5)
    assert frechet_distance(*a, *b) > 0


def test_feature_statistics_are_the_mean_and_covariance_of_the_features() -> None:
    judge = Judge().eval()
    with torch.no_grad():
        features = judge.features(IMAGES).double().numpy()
    mean, covariance = judge.feature_statistics(IMAGES)
    np.testing.assert_allclose(mean.numpy(), features.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(covariance.numpy(), np.cov(features.T), rtol=1e-4, atol=1e-6)


# The judge that ships


def test_the_shipped_judge_is_small_and_ready_to_use() -> None:
    judge = load_judge()
    assert not judge.training
    assert (WEIGHTS / "judge.safetensors").stat().st_size < 1e6
    assert judge(IMAGES[:3]).shape == (3, len(CLASSES))
    assert judge.features(IMAGES[:3]).shape == (3, 64)


def test_the_shipped_judge_recognises_real_garments() -> None:
    judge = load_judge()
    assert judge.accuracy(IMAGES, LABELS) >= 0.9
    assert judge.accuracy(IMAGES, (LABELS + 1) % 10) < 0.1


def test_accuracy_is_the_share_of_labels_given() -> None:
    judge = load_judge()
    with torch.no_grad():
        predicted = judge(IMAGES).argmax(-1)
    half_wrong = torch.where(torch.arange(len(IMAGES)) < len(IMAGES) // 2, predicted, (predicted + 1) % 10)
    assert judge.accuracy(IMAGES, predicted) == 1
    assert judge.accuracy(IMAGES, half_wrong) == 0.5


def test_the_shipped_statistics_are_those_of_the_test_sets_features() -> None:
    """200 of the 10,000 test images: their mean must lie within its sampling error of the shipped one."""
    judge = load_judge()
    mean, _ = judge.feature_statistics(IMAGES)
    error = (judge.feature_covariance.double() / len(IMAGES)).diagonal().sqrt() + 1e-6
    assert ((mean - judge.feature_mean) / error).abs().max() < 5
    assert torch.equal(judge.feature_covariance, judge.feature_covariance.T)
    assert torch.linalg.eigvalsh(judge.feature_covariance.double()).min() > -1e-5


def test_worse_images_lie_farther_from_the_test_set() -> None:
    judge = load_judge()
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(IMAGES.shape, generator=draws)
    distances = [judge.frechet_distance((IMAGES + level * noise).clamp(-1, 1)) for level in (0, 0.2, 0.5, 1)]
    assert distances == sorted(distances)
    assert judge.frechet_distance(IMAGES[LABELS < 5]) > 2 * distances[0]


# Training a judge


def test_a_judge_learns_and_carries_the_statistics_of_its_test_images(tmp_path: Path) -> None:
    labels = torch.arange(40) % 2
    bright = (labels * 200)[:, None, None, None].expand(40, 1, 28, 28).to(torch.uint8)
    easy = Fashion(bright.contiguous(), labels)
    judge = train_judge(easy, easy, tmp_path, Recipe(epochs=8, batch=20, warmup=2, learning_rate=3e-3, ema=0.5))
    assert not judge.training
    assert judge.accuracy(to_pixels(easy.images), labels) == 1
    mean, covariance = judge.feature_statistics(to_pixels(easy.images))
    torch.testing.assert_close(judge.feature_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(judge.feature_covariance.double(), covariance, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(weight, weight.half().float()) for weight in judge.parameters())


def test_training_shows_images_shifted_and_mirrored() -> None:
    shown = []

    class Watching(Judge):
        def forward(self, images: Tensor) -> Tensor:
            shown.append(images)
            return super().forward(images)

    image = torch.full((1, 1, 28, 28), -1.0)
    image[0, 0, 10, 5] = 1
    loss = JudgeLoss(Watching())
    torch.manual_seed(0)
    for _ in range(60):
        loss(image.expand(2, 1, 28, 28), torch.tensor([0, 1]))
    places = {tuple(place) for images in shown for place in (images[:, 0] == 1).nonzero()[:, 1:].tolist()}
    assert {row for row, _ in places} == set(range(8, 13))
    assert {column for _, column in places} == set(range(3, 8)) | set(range(20, 25))
