import json
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marche_fx.models.checkpoint import load_checkpoint
from marche_fx.models.dataset import LabelledImages, to_pixels
from marche_fx.models.emoji import training
from marche_fx.models.emoji.autoencoding import RECIPE as AUTOENCODER_RECIPE
from marche_fx.models.emoji.autoencoding import encode_all, encode_both_ways
from marche_fx.models.emoji.judge import GroupAndSubgroup, emoji_judge
from marche_fx.models.emoji.names import Kind
from marche_fx.models.emoji.training import OneOfTwo, run, train_emoji, train_emoji_judge
from marche_fx.models.train import Recipe

from .tiny import EMOJI, SMALL, colours, tiny_autoencoder, tiny_mar

QUICK = Recipe(epochs=8, batch=12, warmup=2, learning_rate=3e-3, ema=0.5)
CPU = torch.device("cpu")


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(latents)
        return latents.mean()


def test_a_picture_is_seen_one_way_or_the_other() -> None:
    model: Any = Watched()
    pairs = torch.arange(2.0)[:, None, None, None].expand(200, 2, 1, 2, 2)
    torch.manual_seed(0)
    OneOfTwo(model)(pairs, torch.zeros(200))
    seen = model.seen[0].flatten(1)
    assert seen.shape == (200, 4)
    assert (seen == seen[:, :1]).all()
    assert 70 < seen[:, 0].sum() < 130


def test_the_judge_learns_groups_and_carries_the_statistics_of_held_out_pictures(tmp_path: Path) -> None:
    judge = train_emoji_judge(EMOJI, tmp_path, CPU, QUICK)
    groups = EMOJI.in_groups(EMOJI.held_out)
    assert judge.accuracy(to_pixels(groups.images), groups.labels) == 1
    mean, _ = judge.feature_statistics(to_pixels(EMOJI.held_out.images))
    torch.testing.assert_close(judge.feature_mean.double(), mean, rtol=1e-4, atol=1e-5)


def test_features_are_taught_subgroups_and_groups() -> None:
    loss = GroupAndSubgroup(emoji_judge(), EMOJI.group_of).eval()
    images = to_pixels(colours(2).images)

    def of(label: int) -> Tensor:
        torch.manual_seed(0)
        return loss(images, torch.full((2,), label))

    tool, book = of(1), of(2)
    assert tool.item() != book.item()  # One group, two subgroups.
    (gradient,) = torch.autograd.grad(tool - book, loss.judge.project.weight)
    assert gradient.abs().max() > 0
    with torch.no_grad():
        loss.classify_subgroup.weight.zero_()
        loss.classify_subgroup.bias.zero_()
    assert of(1).item() == of(2).item() != of(0).item()


def test_pixels_shifted_into_a_picture_are_white() -> None:
    loss = GroupAndSubgroup(emoji_judge(), EMOJI.group_of)
    torch.manual_seed(0)
    assert all((loss.augment(torch.ones(2, 3, 64, 64)) == 1).all() for _ in range(10))


@pytest.fixture
def tiny_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command with tiny models, pictures and recipes; its arguments may be changed."""
    monkeypatch.setattr(training, "load_emoji", lambda _: EMOJI)
    monkeypatch.setattr(training, "mar_emoji", tiny_mar)
    monkeypatch.setattr(training, "Autoencoder", tiny_autoencoder)
    monkeypatch.setattr(training.train_emoji_judge, "__defaults__", (QUICK,))
    recipe = Recipe(**{**vars(AUTOENCODER_RECIPE), "batch": 4, "warmup": 2})
    small = partial(training.train_autoencoder, recipe=recipe, autoencoder=tiny_autoencoder)
    monkeypatch.setattr(training, "train_autoencoder", small)
    times = {"autoencoder_minutes": 0.01, "minutes": 0.01, "batch": 4, "learning_rate": 1e-3}
    drawn = {"steps": [2], "cfg": [1.0, 2.0], "temperature": [1.0], "judge": False, "compile": False, "device": "cpu"}
    folders = {"data": None, "out": tmp_path / "out", "run": tmp_path / "run"}
    return lambda **changed: run(Namespace(**(folders | times | drawn | changed)))


def test_a_run_writes_weights_and_pictures_and_draws_again_with_them(
    tmp_path: Path, tiny_run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run(judge=True)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    weights = {f"{name}.safetensors" for name in ("model_ema", "autoencoder", "judge", "judge_features")}
    pictures = {f"pictures_2_steps_cfg_{cfg}_temperature_1.png" for cfg in (1, 2)}
    assert written == weights | pictures | {"reconstructions.png", "kinds.json"}
    kinds = json.loads((tmp_path / "out" / "kinds.json").read_text())
    assert [Kind(**kind) for kind in kinds] == [Kind("Flags", "flag"), Kind("Objects", "tool"), Kind("Objects", "book")]
    first = [line for line in capsys.readouterr().out.splitlines() if "pictures seen" in line]
    assert len(first) == 2
    tiny_run(minutes=0, autoencoder_minutes=0)
    assert capsys.readouterr().out.splitlines() == first


def test_a_run_goes_on_unless_its_latents_are_others(tmp_path: Path, tiny_run: Callable[..., None]) -> None:
    def folders() -> set[str]:
        return {path.name for path in (tmp_path / "run").glob("mar-*")}

    tiny_run()
    own = folders()
    tiny_run(autoencoder_minutes=0)
    assert folders() == own
    tiny_run()
    assert len(folders()) == 2


def test_training_fits_its_pictures_and_writes_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder()
    autoencoder.measure(to_pixels(EMOJI.training.images))
    seen = LabelledImages(encode_all(autoencoder, EMOJI.training.images), EMOJI.training.labels)
    before = training.mean_loss(tiny_mar(), seen)
    pairs, file = encode_both_ways(autoencoder, EMOJI, EMOJI.training), tmp_path / "weights.safetensors"
    recipe = Recipe(**{**vars(QUICK), "epochs": 16})
    model = train_emoji(pairs, tmp_path, CPU, minutes=float("inf"), recipe=recipe, weights=file, **SMALL)
    after = training.mean_loss(model, seen)
    assert after < 0.95 * before
    assert not model.training
    assert training.mean_loss(load_checkpoint(tiny_mar(), file).eval(), seen) == pytest.approx(after, rel=1e-2)
