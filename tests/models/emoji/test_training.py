from argparse import Namespace
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from torch import Tensor, nn

from marche_fx.models.dataset import LabelledImages, to_pixels
from marche_fx.models.emoji import training
from marche_fx.models.emoji.dataset import Emoji
from marche_fx.models.emoji.judge import GroupAndSubgroup, emoji_judge
from marche_fx.models.emoji.training import Mirrored, run, save_pictures, train_emoji, train_emoji_judge
from marche_fx.models.presets import mar_emoji
from marche_fx.models.train import Recipe

SMALL: dict[str, Any] = {
    "proj_dropout": 0.0,
    "diffloss_d": 1,
    "diffloss_w": 16,
    "num_sampling_steps": 3,
    "buffer_size": 2,
}
for half in ("encoder", "decoder"):
    SMALL |= {f"{half}_embed_dim": 16, f"{half}_depth": 1, f"{half}_num_heads": 2}
QUICK = Recipe(epochs=8, batch=12, warmup=2, learning_rate=3e-3, ema=0.5)
CPU = torch.device("cpu")


def colours(count: int) -> LabelledImages:
    """Pictures of one colour for each of three subgroups."""
    labels = torch.arange(count) % 3
    palette = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=torch.uint8)
    return LabelledImages(palette[labels][:, :, None, None].expand(count, 3, 64, 64).contiguous(), labels)


EMOJI = Emoji(colours(24), colours(9), ["Flags", "Objects"], ["flag", "tool", "book"], torch.tensor([0, 1, 1]))


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(images)
        return images.mean()


def test_half_of_the_pictures_are_mirrored_but_no_flags() -> None:
    model: Any = Watched()
    pictures = torch.arange(6.0).reshape(1, 1, 2, 3).expand(200, 1, 2, 3)
    labels = torch.arange(200) % 2
    torch.manual_seed(0)
    Mirrored(model, torch.tensor([False, True]))(pictures, labels)
    turned = (model.seen[0] == pictures.flip(-1)).all((1, 2, 3))
    same = (model.seen[0] == pictures).all((1, 2, 3))
    assert same[labels == 0].all()
    assert 30 < turned[labels == 1].sum() < 70
    assert (same ^ turned).all()


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


def test_pictures_stand_in_rows(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 3, 4, 4)
    save_pictures(images, 2, tmp_path / "grid.png")
    grid = matplotlib.image.imread(tmp_path / "grid.png")[..., :3]
    assert grid.shape == (8, 12, 3)
    assert grid[::4, ::4, 0].flatten().tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=0.01)


def test_a_run_writes_weights_and_pictures_and_draws_again_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "load_emoji", lambda _: EMOJI)
    monkeypatch.setattr(training, "mar_emoji", lambda **options: mar_emoji(**(SMALL | options)))
    monkeypatch.setattr(training, "ROWS", 1)
    monkeypatch.setattr(training.train_emoji_judge, "__defaults__", (QUICK,))
    asked = Namespace(data=None, out=tmp_path / "out", run=tmp_path / "run", minutes=0.02, batch=4, learning_rate=1e-3)
    asked = Namespace(**vars(asked), device="cpu", compile=False, judge=True, steps=[2, 3], cfg=[1.0, 2.0], images=4)
    run(asked)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {f"pictures_{steps}_steps_cfg_{cfg}.png" for steps in (2, 3) for cfg in (1, 2)}
    assert written == {"model_ema.safetensors", "judge.safetensors", "judge_features.safetensors"} | pictures
    first = capsys.readouterr().out
    run(Namespace(**(vars(asked) | {"minutes": 0, "judge": False})))
    again = [line.rsplit(",", 1)[0] for line in capsys.readouterr().out.splitlines()]
    assert again == [line.rsplit(",", 1)[0] for line in first.splitlines() if "step 1" not in line][-len(again) :]
    assert sum("Frechet" in line for line in again) == 4


def test_training_fits_its_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    groups = EMOJI.in_groups(EMOJI.training)
    before = training.mean_loss(mar_emoji(**SMALL), groups)
    model = train_emoji(EMOJI, tmp_path, CPU, minutes=float("inf"), recipe=QUICK, **SMALL)
    assert training.mean_loss(model, groups) < 0.95 * before
    assert not model.training
