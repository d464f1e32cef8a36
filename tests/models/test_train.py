"""What a training learns: of which images, at which rate, and the average of its weights."""

import math
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from marche_fx.models.dataset import LabelledImages, to_pixels
from marche_fx.models.fashion import Fashion
from marche_fx.models.mar import MAR
from marche_fx.models.train import Recipe, averaged_copy, batches, learning_rate_factor, repeated_blocks, train
from marche_fx.models.training_state import STATE_FILE

from .runs import IMAGES, RECIPE, Bias, assert_same_weights, fresh_model
from .tiny import tiny_mar


def test_the_result_is_the_exponential_average_of_the_weights(tmp_path: Path) -> None:
    seen = []

    class Watched(Bias):
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            seen.append(self.value.item())
            return super().forward(images, labels)

    result = train(Watched(), IMAGES, tmp_path, RECIPE)
    final = torch.load(tmp_path / STATE_FILE, weights_only=True)["model"]["value"].item()
    average = seen[1]
    for value in [*seen[2:], final]:
        average = 0.8 * average + 0.2 * value
    assert result.value.item() == pytest.approx(average, rel=1e-6)
    assert final < 1


def test_training_lowers_the_loss_of_the_bundled_architecture(tmp_path: Path) -> None:
    gray = Fashion(torch.full((16, 1, 8, 8), 200, dtype=torch.uint8), torch.zeros(16, dtype=torch.int64))
    model = tiny_mar().float()

    @torch.no_grad()
    def loss(model: MAR) -> float:
        torch.manual_seed(0)
        return sum(model(to_pixels(gray.images), gray.labels).item() for _ in range(20)) / 20

    before = loss(model)
    trained = train(model, gray, tmp_path, Recipe(epochs=30, batch=8, learning_rate=1e-2, warmup=3, ema=0.9))
    assert loss(trained) < 0.8 * before
    assert not trained.training


def test_the_learning_rate_warms_up_and_falls_as_half_a_cosine() -> None:
    factors = [learning_rate_factor(step, 100, 20) for step in range(100)]
    assert factors[:3] == pytest.approx([1 / 20, 2 / 20, 3 / 20])
    assert factors[20] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0, abs=1e-3)
    assert learning_rate_factor(0, 100, 0) == 1
    assert all(math.isclose(a + b, 1) for a, b in zip(factors[20:], [0, *factors[:20:-1]], strict=True))


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    numbered = Fashion(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20))
    labels = torch.stack([labels for _, labels in islice(batches(numbered, RECIPE, 0), 10)]).reshape(2, 20)
    assert labels.sort(-1).values.tolist() == [list(range(20))] * 2
    assert not torch.equal(labels[0], labels[1])


def test_batches_are_the_same_wherever_they_are_resumed() -> None:
    whole = [labels.tolist() for _, labels in islice(batches(IMAGES, RECIPE, 0), 10)]
    for step in range(10):
        assert [labels.tolist() for _, labels in islice(batches(IMAGES, RECIPE, step), 10 - step)] == whole[step:]


def test_the_blocks_to_compile_are_those_of_the_transformer_and_the_head() -> None:
    kinds = [type(block).__name__ for block in repeated_blocks(tiny_mar())]
    assert kinds == ["Block"] * 4 + ["ResBlock"] * 2


def test_away_from_a_terminal_each_checkpoint_prints_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(fresh_model(), IMAGES, tmp_path, RECIPE, checkpoint_seconds=0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("step 10 of 10: loss ")
    assert lines[-1].endswith("images/s")


@pytest.mark.parametrize("every", [1, 3, 100])
def test_how_often_the_loss_is_looked_at_changes_no_weight(tmp_path: Path, every: int) -> None:
    whole = train(fresh_model(), IMAGES, tmp_path / "whole", RECIPE)
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path / "other", RECIPE, look_every=every), whole)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(0, 20))
def test_weights_enter_the_average_by_a_power_of_their_step(values: list[float], power: float) -> None:
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    averaged = averaged_copy(model, Recipe(ema_power=power))
    for value in values:
        nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
    ends = [(step / len(values)) ** (power + 1) for step in range(len(values) + 1)]
    expected = sum(value * (end - begin) for value, begin, end in zip(values, ends[:-1], ends[1:], strict=True))
    assert next(averaged.module.parameters()).item() == pytest.approx(expected, abs=1e-9)


def test_the_average_is_kept_whenever_the_state_is_and_at_the_end(tmp_path: Path) -> None:
    kept: list[Tensor] = []

    def keep(averaged: MAR) -> None:
        kept.append(averaged.mask_token.detach().clone())

    model = train(fresh_model(), IMAGES, tmp_path, RECIPE, checkpoint_seconds=0, keep=keep)
    assert len(kept) == 11
    assert torch.equal(kept[-1], model.mask_token)
    assert not torch.equal(kept[0], kept[-1])


def test_a_model_sees_what_is_made_of_the_images(tmp_path: Path) -> None:
    def dark(images: Tensor) -> Tensor:
        return to_pixels(images // 2)

    half = LabelledImages(IMAGES.images // 2, IMAGES.labels)
    of_half = train(fresh_model(), half, tmp_path / "half", RECIPE)
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path / "made", RECIPE, prepare=dark), of_half)
