import pytest
import torch
from torch import Tensor

from marche_fx.errors import ArgumentError
from marche_fx.models.bundled import load_judge
from marche_fx.models.quality import measure_quality

from .test_judge import IMAGES, LABELS


def real_images(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A perfect sampler: a random real image of each label."""
    picked = [torch.randint(20, (), generator=generator) for _ in labels]
    return torch.stack([IMAGES[label == LABELS][pick] for label, pick in zip(labels, picked, strict=True)])


def shapeless_noise(labels: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(len(labels), 1, 28, 28, generator=generator)


def test_real_images_are_judged_better_than_noise() -> None:
    judge = load_judge()
    real, noise = (measure_quality(sample, judge, 100, batch=30) for sample in (real_images, shapeless_noise))
    assert real.accuracy > 0.8
    assert noise.accuracy < 0.3
    assert real.frechet_distance < 0.5 * noise.frechet_distance


def test_each_class_is_asked_for_equally_often_in_batches_of_the_chosen_size() -> None:
    asked = []

    def sample(labels: Tensor, generator: torch.Generator) -> Tensor:
        asked.append(labels)
        return shapeless_noise(labels, generator)

    quality = measure_quality(sample, load_judge(), 50, batch=20)
    assert [len(labels) for labels in asked] == [20, 20, 10]
    assert torch.cat(asked).bincount().tolist() == [5] * 10
    assert torch.equal(quality.labels, torch.cat(asked))
    assert quality.images.shape == (50, 1, 28, 28)
    assert quality.images.abs().max() <= 1


def test_what_is_reported_is_what_the_judge_says_of_the_images() -> None:
    judge = load_judge()
    quality = measure_quality(real_images, judge, 40)
    assert quality.accuracy == judge.accuracy(quality.images, quality.labels)
    assert quality.frechet_distance == judge.frechet_distance(quality.images)


def test_equal_seeds_give_equal_draws_and_others_do_not() -> None:
    judge = load_judge()
    first, again, other = (measure_quality(shapeless_noise, judge, 20, seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("count", "batch"), [(1, 10), (10, 0)])
def test_too_few_images_are_refused(count: int, batch: int) -> None:
    with pytest.raises(ArgumentError, match="at least"):
        measure_quality(shapeless_noise, load_judge(), count, batch=batch)
