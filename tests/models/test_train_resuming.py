"""A training that was killed goes on to what an uninterrupted one gives."""

import shutil
from pathlib import Path

import pytest
import torch

from marche_fx.models.train import Recipe, train
from marche_fx.models.training_state import EARLIER_FILE, STATE_FILE
from tests.flips import flipped

from .runs import IMAGES, RECIPE, Killed, assert_same_weights, fresh_model, killed_after


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


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{STATE_FILE}.1-2.partial").touch()
    train(fresh_model(), IMAGES, tmp_path, RECIPE)
    assert [own.name for own in tmp_path.iterdir()] == [STATE_FILE]
