"""What a training refuses by name, and that it leaves the last good state as it is."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from marche_fx.errors import OutOfMemoryError, TrainingError
from marche_fx.models.train import Recipe, train
from marche_fx.models.training_state import EARLIER_FILE, STATE_FILE, last_state
from tests.flips import flipped

from .runs import IMAGES, RECIPE, Bias, fresh_model, killed_after
from .tiny import tiny_images


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


def test_a_file_that_is_no_training_state_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / STATE_FILE)
    with pytest.raises(TrainingError, match="no training state"):
        train(fresh_model(), IMAGES, tmp_path, RECIPE)


def test_the_run_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    with pytest.raises(TrainingError, match=r"another recipe: ema was 0\.8 and is 0\.9"):
        train(fresh_model(), IMAGES, tmp_path, Recipe(epochs=2, batch=4, warmup=3, ema=0.9))


class Breaks(Bias):
    """Its loss is no number in its fourth step."""

    calls = 0

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images, labels) * (math.nan if self.calls == 4 else 1)


def test_the_run_of_another_model_is_refused(tmp_path: Path) -> None:
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    with pytest.raises(TrainingError, match="run of another model"):
        train(Bias(), IMAGES, tmp_path, RECIPE)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss became nan in step 3"):
        train(Breaks(), IMAGES, tmp_path, RECIPE, checkpoint_seconds=0)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["step"] == 3
    assert state["model"]["value"].isfinite()


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 images do not fill one batch of 4"):
        train(fresh_model(), tiny_images(3), tmp_path, RECIPE)


def test_a_loss_that_is_looked_at_later_still_keeps_the_state_before_it(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nan in step 3"):
        train(Breaks(), IMAGES, tmp_path, RECIPE, look_every=100)
    assert not (tmp_path / STATE_FILE).exists()
    with pytest.raises(TrainingError, match="nan in step 3"):
        train(Breaks(), IMAGES, tmp_path, RECIPE, look_every=100, checkpoint_seconds=0)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 3
