import math
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from marche_fx.errors import OutOfMemoryError, TrainingError
from marche_fx.models.dataset import LabelledImages, to_pixels
from marche_fx.models.fashion import Fashion
from marche_fx.models.mar import MAR
from marche_fx.models.train import Pace, Recipe, averaged_copy, batches, learning_rate_factor, repeated_blocks, train
from marche_fx.models.training_state import EARLIER_FILE, STATE_FILE, last_state
from tests.flips import flipped

from .tiny import tiny_images, tiny_mar

IMAGES = tiny_images(20)
RECIPE = Recipe(epochs=2, batch=4, warmup=3, ema=0.8)  # 10 steps


class Killed(BaseException):
    """Stands for a kill: nothing in the library may catch it."""


def fresh_model() -> MAR:
    """With dropout and label dropping, so that training draws random numbers everywhere it can."""
    return tiny_mar(label_drop_prob=0.5, proj_dropout=0.2).float()


def killed_after(calls: int, out: Path, **options: Any) -> None:
    model, remaining = fresh_model(), iter(range(calls))

    def kill(*_: object) -> None:
        if next(remaining, None) is None:
            raise Killed

    model.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        train(model, IMAGES, out, RECIPE, checkpoint_seconds=0, **options)


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    weights = b.state_dict()
    assert [name for name, tensor in a.state_dict().items() if not torch.equal(tensor, weights[name])] == []


# Resuming


@pytest.mark.parametrize("bf16", [False, True])
def test_a_run_killed_twice_and_resumed_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, bf16: bool) -> None:
    whole = train(fresh_model(), IMAGES, tmp_path / "whole", RECIPE, bf16=bf16)
    killed_after(2, tmp_path / "cut", bf16=bf16)
    torch.manual_seed(99)  # Another process has another random state.
    killed_after(5, tmp_path / "cut", bf16=bf16)
    torch.manual_seed(98)
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path / "cut", RECIPE, bf16=bf16), whole)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    killed_after(0, tmp_path / "cut")
    assert not (tmp_path / "cut" / STATE_FILE).exists()
    whole = train(fresh_model(), IMAGES, tmp_path / "whole", RECIPE)
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path / "cut", RECIPE), whole)


def test_a_run_killed_while_it_writes_its_state_goes_on_from_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(fresh_model(), IMAGES, tmp_path / "whole", RECIPE)
    write, saves = torch.save, []

    def killed_in_the_third_write(state: object, path: Path) -> None:
        write(state, path)
        saves.append(path)
        if len(saves) == 3:
            path.write_bytes(path.read_bytes()[:1000])
            raise Killed

    monkeypatch.setattr(torch, "save", killed_in_the_third_write)
    with pytest.raises(Killed):
        train(fresh_model(), IMAGES, tmp_path / "cut", RECIPE, checkpoint_seconds=0)
    monkeypatch.undo()
    state = torch.load(tmp_path / "cut" / STATE_FILE, weights_only=True)
    assert state["step"] == 2
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path / "cut", RECIPE), whole)


def test_a_finished_run_gives_its_weights_again_and_can_be_made_longer(tmp_path: Path) -> None:
    finished = train(fresh_model(), IMAGES, tmp_path, RECIPE)
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path, RECIPE), finished)
    longer = Recipe(epochs=3, batch=4, warmup=3, ema=0.8)
    train(fresh_model(), IMAGES, tmp_path, longer)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 15


def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    whole = train(fresh_model(), IMAGES, tmp_path / "whole", RECIPE)
    killed_after(5, tmp_path / "cut")
    assert torch.load(tmp_path / "cut" / EARLIER_FILE, weights_only=True)["step"] == 4
    said = r"training\.pt is damaged; going on from .*training\.earlier\.pt, of step 4"
    for _ in flipped(tmp_path / "cut" / STATE_FILE, 3):
        copy = shutil.copytree(tmp_path / "cut", tmp_path / "copy")
        with pytest.warns(UserWarning, match=said):
            assert_same_weights(train(fresh_model(), IMAGES, copy, RECIPE), whole)
        # The damaged one does not outlive the state that served.
        assert torch.load(copy / EARLIER_FILE, weights_only=True)["step"] == 4
        shutil.rmtree(copy)


def test_a_run_killed_between_its_two_states_goes_on(tmp_path: Path) -> None:
    whole = train(fresh_model(), IMAGES, tmp_path / "whole", RECIPE)
    killed_after(3, tmp_path / "cut")
    (tmp_path / "cut" / STATE_FILE).unlink()
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path / "cut", RECIPE), whole)


# What is learnt


class Bias(nn.Module):
    """Its loss is the square of one number, whatever the images."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.value**2


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


# What is refused


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written"):
        train(fresh_model(), IMAGES, tmp_path / "file" / "run", RECIPE)


def test_a_folder_that_vanishes_during_training_is_reported(tmp_path: Path) -> None:
    class Vandal(Bias):
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            shutil.rmtree(tmp_path / "run")
            return super().forward(images, labels)

    with pytest.raises(TrainingError, match="state cannot be written"):
        train(Vandal(), IMAGES, tmp_path / "run", RECIPE, checkpoint_seconds=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_refused_and_left_as_it_is(tmp_path: Path, share: float) -> None:
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    path = tmp_path / STATE_FILE
    cut = path.read_bytes()[: int(share * path.stat().st_size)]
    path.write_bytes(cut)
    with pytest.raises(TrainingError, match=r"training\.pt is damaged"):
        train(fresh_model(), IMAGES, tmp_path, RECIPE)
    assert path.read_bytes() == cut


def test_a_state_for_which_there_is_not_the_memory_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_after(5, tmp_path)
    before = {own.name: own.read_bytes() for own in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(OutOfMemoryError, match=r"no memory is left to read .*training\.pt\. Free some"):
        last_state(tmp_path)
    assert {own.name: own.read_bytes() for own in tmp_path.iterdir()} == before, "it is not put in the place of another"


def test_a_state_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    killed_after(5, tmp_path)
    (tmp_path / STATE_FILE).unlink()
    (tmp_path / STATE_FILE).mkdir()
    with pytest.raises(TrainingError, match=r"training\.pt cannot be read: .*see that it can"):
        train(fresh_model(), IMAGES, tmp_path, RECIPE)


def test_every_flipped_bit_of_a_state_is_noticed(tmp_path: Path) -> None:
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    for _ in flipped(tmp_path / STATE_FILE, 300):
        with pytest.raises(TrainingError, match=r"training\.pt is damaged.*remove it to start anew"):
            last_state(tmp_path)


def test_two_damaged_states_are_named(tmp_path: Path) -> None:
    killed_after(3, tmp_path)
    for name in (STATE_FILE, EARLIER_FILE):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(TrainingError, match=r"training\.pt and .*training\.earlier\.pt are damaged"):
        train(fresh_model(), IMAGES, tmp_path, RECIPE)


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{STATE_FILE}.1-2.partial").touch()
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    assert [own.name for own in tmp_path.iterdir()] == [STATE_FILE]


def test_a_file_that_is_no_training_state_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / STATE_FILE)
    with pytest.raises(TrainingError, match="no training state"):
        train(fresh_model(), IMAGES, tmp_path, RECIPE)


def test_the_run_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    with pytest.raises(TrainingError, match=r"another recipe: ema was 0\.8 and is 0\.9"):
        train(fresh_model(), IMAGES, tmp_path, Recipe(epochs=2, batch=4, warmup=3, ema=0.9))


def test_the_run_of_another_model_is_refused(tmp_path: Path) -> None:
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    with pytest.raises(TrainingError, match="run of another model"):
        train(Bias(), IMAGES, tmp_path, RECIPE)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    class Broken(Bias):
        calls = 0

        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(images, labels) * (math.nan if self.calls == 4 else 1)

    with pytest.raises(TrainingError, match="loss became nan in step 3"):
        train(Broken(), IMAGES, tmp_path, RECIPE, checkpoint_seconds=0)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["step"] == 3
    assert state["model"]["value"].isfinite()


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 images do not fill one batch of 4"):
        train(fresh_model(), tiny_images(3), tmp_path, RECIPE)


# Ending in time


class Clock:
    """Tells the seconds it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_with_minutes_ends_in_time_and_expects_its_end_after_a_slow_start() -> None:
    clock = Clock()
    pace, step, totals = Pace(math.inf, 10, clock), 0, []
    while step < (total := pace.total(step)):
        totals.append(total)
        clock.now += 60 if step == 0 else 0.5  # The first step compiles.
        step += 1
    assert clock.now == pytest.approx(600, abs=1)
    assert step == pytest.approx(1 + 540 / 0.5, abs=2)
    assert all(total == pytest.approx(step, rel=0.01) for total in totals[201:])


def test_a_run_with_minutes_has_no_more_steps_than_its_epochs() -> None:
    clock = Clock()
    pace, step = Pace(7, 10, clock), 0
    while step < pace.total(step):
        clock.now += 0.5
        step += 1
    assert step == 7


def test_a_run_with_no_minutes_left_keeps_its_state(tmp_path: Path) -> None:
    killed_after(5, tmp_path)
    train(fresh_model(), IMAGES, tmp_path, RECIPE, minutes=0)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 5


def test_a_loss_that_is_looked_at_later_still_keeps_the_state_before_it(tmp_path: Path) -> None:
    class Breaks(Bias):
        calls = 0

        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(images, labels) * (math.nan if self.calls == 4 else 1)

    with pytest.raises(TrainingError, match="nan in step 3"):
        train(Breaks(), IMAGES, tmp_path, RECIPE, look_every=100)
    assert not (tmp_path / STATE_FILE).exists()
    with pytest.raises(TrainingError, match="nan in step 3"):
        train(Breaks(), IMAGES, tmp_path, RECIPE, look_every=100, checkpoint_seconds=0)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 3


@pytest.mark.parametrize("every", [1, 3, 100])
def test_how_often_the_loss_is_looked_at_changes_no_weight(tmp_path: Path, every: int) -> None:
    whole = train(fresh_model(), IMAGES, tmp_path / "whole", RECIPE)
    assert_same_weights(train(fresh_model(), IMAGES, tmp_path / "other", RECIPE, look_every=every), whole)


# The average of the weights


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
