import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from marche_fx.errors import TrainingError
from marche_fx.models import load_checkpoint, save_weights
from marche_fx.models.optimizer import MuonWithAdamW
from marche_fx.models.text import TextDiffusion
from marche_fx.models.text.batches import Batch, draw_batch
from marche_fx.models.text.masking import stratified_mask
from marche_fx.models.text.recipe import Recipe
from marche_fx.models.text.training import Progress, masked_loss, train_text
from marche_fx.models.training_state import EARLIER_FILE, STATE_FILE
from tests.flips import flipped

from .tiny import RECIPE, tiny_corpus, tiny_model

CORPUS = tiny_corpus()


class Killed(BaseException):
    """Stands for a kill: nothing in the library may catch it."""


def killed_after(calls: int, out: Path, **options: Any) -> None:
    remaining = iter(range(calls))

    def kill(*_: object) -> None:
        if next(remaining, None) is None:
            raise Killed

    model = tiny_model()
    model.norm.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        train_text(model, CORPUS, out, RECIPE, checkpoint_seconds=0, **options)


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    weights = b.state_dict()
    assert [name for name, tensor in a.state_dict().items() if not torch.equal(tensor, weights[name])] == []


# What is learnt


def test_a_tiny_model_learns_what_a_text_is_like(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=150, decay=50, learning_rate=0.01)
    told: list[Progress] = []
    trained = train_text(tiny_model(), CORPUS, tmp_path, recipe, watch=lambda _, progress: told.append(progress))
    assert not trained.training
    assert [own.step for own in told] == [150]
    batch = draw_batch(CORPUS, replace(recipe, batch=1024), 1000)
    with torch.no_grad():
        assert masked_loss(trained, batch) < 0.6 * masked_loss(tiny_model(), batch)


def test_the_loss_weighs_rows_alike_however_many_pieces_are_masked() -> None:
    model = tiny_model()
    ids = CORPUS.windows(CORPUS.starts[:2], 8)
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[0, 3] = mask[1, :6] = True
    rows = [
        masked_loss(model, Batch(ids[row : row + 1], mask[row : row + 1], count)) for row, count in ((0, 1), (1, 6))
    ]
    assert torch.allclose(masked_loss(model, Batch(ids, mask, 7)), sum(rows, torch.zeros(())) / 2)


def test_masks_are_spread_evenly_over_their_numbers() -> None:
    counts = stratified_mask(32, 64, torch.Generator().manual_seed(0)).sum(-1)
    assert torch.equal(((counts - 1) // 2).sort().values, torch.arange(32))


def test_every_piece_is_optimized_once() -> None:
    model = tiny_model()
    optimizer = MuonWithAdamW(model, 0.1)
    groups = [*optimizer.muon.param_groups, *optimizer.adamw.param_groups]
    own = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(own) == sorted(map(id, model.parameters()))


def test_the_learning_rate_rises_stays_and_falls() -> None:
    recipe = Recipe(steps=100, decay=20, warmup=10, learning_rate=1.0)
    assert [recipe.rate(step) for step in (0, 4, 9, 50, 80, 90, 99)] == [0.1, 0.5, 1, 1, 1, 0.5, 0.05]
    assert Recipe(steps=100, decay=0, warmup=0, learning_rate=1.0).rate(99) == 1


def test_the_learning_rate_falls_with_the_time_that_ends_the_run() -> None:
    recipe = Recipe(decay=0, cooldown=0.5, warmup=10, learning_rate=1.0)
    assert [recipe.rate(50, elapsed) for elapsed in (0.0, 0.4, 0.5, 0.75, 1.0, 1.5)] == [1, 1, 1, 0.5, 0, 0]
    assert recipe.rate(4, 0.25) == 0.5


def test_a_run_that_its_time_ends_follows_the_clock(tmp_path: Path) -> None:
    # With no time at all the rate of the only step is nothing, so no weight moves.
    model, before = tiny_model(), tiny_model()
    train_text(model, CORPUS, tmp_path, replace(RECIPE, cooldown=0.5), minutes=0)
    assert_same_weights(model, before)


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=4, lengths=(16,))
    whole = train_text(tiny_model(depth=1), CORPUS, tmp_path / "eager", recipe).state_dict()
    compiled = train_text(tiny_model(depth=1), CORPUS, tmp_path / "compiled", recipe, compile=True).state_dict()
    for name, tensor in whole.items():
        # Muon turns small differences of a gradient into larger ones, of bfloat16's size.
        assert torch.allclose(compiled[name], tensor, atol=2e-3), name


def test_dropout_is_for_training_alone() -> None:
    model, dropping = tiny_model().eval(), tiny_model(dropout=0.5).eval()
    ids = CORPUS.pieces[None, :20]
    assert torch.equal(model(ids), dropping(ids))
    dropping.train()
    assert not torch.equal(dropping(ids), dropping(ids))


# Resuming


@pytest.mark.parametrize("bf16", [False, True])
def test_a_run_killed_twice_and_resumed_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, bf16: bool) -> None:
    whole = train_text(tiny_model(), CORPUS, tmp_path / "whole", RECIPE, bf16=bf16)
    killed_after(3, tmp_path / "cut", bf16=bf16)
    killed_after(4, tmp_path / "cut", bf16=bf16)
    assert_same_weights(train_text(tiny_model(), CORPUS, tmp_path / "cut", RECIPE, bf16=bf16), whole)


def test_a_run_stops_after_its_minutes_and_goes_on_later(tmp_path: Path) -> None:
    whole = train_text(tiny_model(), CORPUS, tmp_path / "whole", RECIPE)
    train_text(tiny_model(), CORPUS, tmp_path / "cut", RECIPE, minutes=0)
    assert torch.load(tmp_path / "cut" / STATE_FILE, weights_only=True)["step"] == 1
    assert_same_weights(train_text(tiny_model(), CORPUS, tmp_path / "cut", RECIPE), whole)


def test_a_run_can_be_made_longer_but_not_another(tmp_path: Path) -> None:
    train_text(tiny_model(), CORPUS, tmp_path, RECIPE)
    train_text(tiny_model(), CORPUS, tmp_path, replace(RECIPE, steps=14, decay=0))
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 14
    with pytest.raises(TrainingError, match=r"learning_rate was 0\.003 and is 1"):
        train_text(tiny_model(), CORPUS, tmp_path, replace(RECIPE, learning_rate=1.0))
    with pytest.raises(TrainingError, match="another model"):
        train_text(tiny_model(width=16), CORPUS, tmp_path, RECIPE)


def test_a_damaged_state_is_passed_over_for_the_one_before_and_refused_without(tmp_path: Path) -> None:
    whole = train_text(tiny_model(), CORPUS, tmp_path / "whole", RECIPE)
    killed_after(5, tmp_path / "cut")
    for _ in flipped(tmp_path / "cut" / STATE_FILE, 3):
        copy = shutil.copytree(tmp_path / "cut", tmp_path / "copy")
        with pytest.warns(UserWarning, match=r"training\.pt is damaged; going on from"):
            assert_same_weights(train_text(tiny_model(), CORPUS, copy, RECIPE), whole)
        shutil.rmtree(copy)
    (tmp_path / "cut" / EARLIER_FILE).unlink()
    for _ in flipped(tmp_path / "cut" / STATE_FILE, 3):
        with pytest.raises(TrainingError, match=r"training\.pt is damaged"):
            train_text(tiny_model(), CORPUS, tmp_path / "cut", RECIPE)


def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="too few for windows of 100000"):
        train_text(tiny_model(), CORPUS, tmp_path, replace(RECIPE, lengths=(100_000,)))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    model = tiny_model()
    nn.init.constant_(model.norm.weight, float("nan"))
    with pytest.raises(TrainingError, match="the loss became nan in step 0"):
        train_text(model, CORPUS, tmp_path, RECIPE)
    assert not (tmp_path / STATE_FILE).exists()


def test_trained_weights_load_from_a_file(tmp_path: Path) -> None:
    trained = train_text(tiny_model(), CORPUS, tmp_path, RECIPE)
    save_weights(trained, tmp_path / "weights.safetensors")
    loaded: TextDiffusion = load_checkpoint(tiny_model(depth=2), tmp_path / "weights.safetensors")
    assert_same_weights(loaded, trained.half().float())
