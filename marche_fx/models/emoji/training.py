"""Train `mar_emoji` and the judge of emoji: ``python -m marche_fx.models.emoji.training``, on any device."""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib import image as pictures
from torch import Tensor, nn

from ..checkpoint import load_checkpoint, save_weights
from ..dataset import LabelledImages, to_pixels
from ..judge import FEATURES_FILE, JUDGE_FILE, Judge, save_features, train_judge
from ..mar import MAR
from ..presets import mar_emoji
from ..train import WEIGHTS_FILE, Recipe, train
from .dataset import Emoji, load_emoji
from .judge import RECIPE as JUDGE_RECIPE
from .judge import GroupAndSubgroup, emoji_judge

RECIPE = Recipe(epochs=1000, batch=256, learning_rate=1e-3, warmup=300, weight_decay=0.02, clip=1.0, ema=0.999)
WITH_A_RIGHT_SIDE = ("Flags", "Symbols")
"""Groups whose mirror images are wrong: those with letters."""

LOOK_EVERY = 25
ROWS = 8


class Mirrored(nn.Module):
    """The loss of ``model`` on pictures of which half are mirrored, but for those groups that are not to be.

    Args:
        mirrors: ``[groups]`` bool.
    """

    mirrors: Tensor

    def __init__(self, model: MAR, mirrors: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mirrors", mirrors)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        mirror = (torch.rand(len(images), device=images.device) < 0.5) & self.mirrors[labels]
        return self.model(torch.where(mirror[:, None, None, None], images.flip(-1), images), labels)


def train_emoji(
    emoji: Emoji,
    out: Path,
    device: torch.device,
    *,
    minutes: float,
    recipe: Recipe = RECIPE,
    compile: bool = False,
    **options: int,
) -> MAR:
    """`mar_emoji` with ``options``, trained on ``device`` in the folder ``out`` for so many minutes, resumable."""
    torch.manual_seed(recipe.seed)
    mirrors = torch.tensor([group not in WITH_A_RIGHT_SIDE for group in emoji.groups])
    return train(
        Mirrored(mar_emoji(**options), mirrors).to(device),
        emoji.in_groups(emoji.training),
        out,
        recipe,
        bf16=True,
        compile=compile,
        checkpoint_seconds=60,
        minutes=minutes,
        look_every=LOOK_EVERY,
    ).model


def train_emoji_judge(emoji: Emoji, out: Path, device: torch.device, recipe: Recipe = JUDGE_RECIPE) -> Judge:
    """The judge of emoji, trained on ``device`` in the folder ``out``, with the statistics of the held-out pictures."""
    torch.manual_seed(recipe.seed)
    loss = GroupAndSubgroup(emoji_judge(), emoji.group_of).to(device)
    return train_judge(emoji.training, emoji.held_out, out, recipe, loss=loss, bf16=True, look_every=LOOK_EVERY)


@torch.no_grad()
def mean_loss(model: MAR, images: LabelledImages, batch: int = 256, passes: int = 2) -> float:
    """Of all ``images`` under as many draws of masks and noise, the same for every model."""
    torch.manual_seed(0)
    parts = list(zip(images.images.split(batch), images.labels.split(batch), strict=True)) * passes
    losses = [model(to_pixels(some), labels) * len(labels) for some, labels in parts]
    return torch.stack(losses).sum().item() / (passes * len(images))


@torch.inference_mode()
def generate(model: MAR, labels: Tensor, steps: int, cfg: float, batch: int = 288, seed: int = 0) -> Tensor:
    """A picture for each of ``labels`` ``[M]``, some at a time: ``[M, 3, 64, 64]`` in -1..1."""
    generator = torch.Generator(labels.device).manual_seed(seed)
    parts = [
        model.sample_tokens(len(some), steps, cfg, labels=some, generator=generator) for some in labels.split(batch)
    ]
    return torch.cat(parts).clamp(-1, 1)


def save_pictures(images: Tensor, rows: int, path: Path) -> None:
    """Write images ``[rows * columns, 3, H, W]`` in -1..1 as one picture."""
    height = images.shape[2]
    grid = images.reshape(rows, -1, *images.shape[1:]).permute(0, 3, 1, 4, 2).reshape(rows * height, -1, 3)
    pictures.imsave(path, (grid.float() / 2 + 0.5).numpy(force=True))


def run(given: argparse.Namespace) -> None:
    """Train what is asked for, write the weights, then draw with them as they are stored."""
    # The products of float32 matrices, which sampling is made of, may be as coarse as those of training.
    torch.set_float32_matmul_precision("high")
    device = torch.device(given.device)
    emoji = load_emoji(given.data)
    given.out.mkdir(parents=True, exist_ok=True)
    folder = given.run or given.out
    if given.judge:
        judge = train_emoji_judge(emoji, folder / "judge", device)
        save_weights(judge, given.out / JUDGE_FILE)
        save_features(judge, emoji.held_out.to(device), given.out / FEATURES_FILE)
    if given.minutes > 0:
        recipe = replace(RECIPE, batch=given.batch, learning_rate=given.learning_rate)
        mar = train_emoji(emoji, folder / "mar", device, minutes=given.minutes, recipe=recipe, compile=given.compile)
        save_weights(mar, given.out / WEIGHTS_FILE)
    mar = load_checkpoint(mar_emoji(), given.out / WEIGHTS_FILE).to(device).eval()
    held_out = emoji.in_groups(emoji.held_out).to(device)
    seen = shuffled(emoji.in_groups(emoji.training), len(held_out)).to(device)
    print(
        f"loss {mean_loss(mar, seen):.4f} on pictures seen, {mean_loss(mar, held_out):.4f} on held-out ones", flush=True
    )
    columns = torch.arange(len(emoji.groups), device=device)
    for steps, cfg in itertools.product(given.steps, given.cfg):
        grid = generate(mar, columns.repeat(ROWS), steps, cfg)
        save_pictures(grid, ROWS, given.out / f"pictures_{steps}_steps_cfg_{cfg:g}.png")
    if given.images:
        judge = load_checkpoint(emoji_judge(), given.out / JUDGE_FILE).to(device).eval()
        print_quality(mar, judge, held_out, given)


def shuffled(dataset: LabelledImages, count: int) -> LabelledImages:
    """``count`` images drawn at random."""
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    return LabelledImages(dataset.images[chosen], dataset.labels[chosen])


def print_quality(mar: MAR, judge: Judge, held_out: LabelledImages, given: argparse.Namespace) -> None:
    """A line for each number of steps and scale of guidance, whose pictures have the labels of held-out ones."""
    labels = shuffled(held_out, given.images).labels
    real = to_pixels(held_out.images)
    print(f"judge: {judge.accuracy(real, held_out.labels):.1%} of the held-out pictures right", flush=True)
    for cfg, steps in itertools.product(given.cfg, given.steps):
        started = time.perf_counter()
        images = generate(mar, labels, steps, cfg)
        distance, accuracy = judge.frechet_distance(images), judge.accuracy(images, labels)
        seconds = time.perf_counter() - started
        print(
            f"guidance {cfg:g}, {steps} steps: Frechet {distance:.3f}, label {accuracy:.1%}, {seconds:.1f} s",
            flush=True,
        )


def main() -> None:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    parser = argparse.ArgumentParser(description="Train the MAR of emoji, and their judge.")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="what python -m marche_fx.models.emoji.pictures made")
    add("--out", type=Path, required=True, help="folder for weights and pictures")
    add("--run", type=Path, help="folder of the run, which goes on if found there; --out when omitted")
    add("--minutes", type=float, default=5.0, help="of training the MAR; 0 for none, to use the weights in --out")
    add("--batch", type=int, default=RECIPE.batch, help="pictures in a step of training")
    add("--learning-rate", type=float, default=RECIPE.learning_rate, help="at its highest")
    add("--device", default=str(accelerator or "cpu"), help="where to train and to draw")
    add("--compile", action="store_true", help="torch.compile the repeated blocks")
    add("--judge", action="store_true", help="train the judge, before the MAR")
    add("--steps", type=int, nargs="+", default=[64], help="decoding steps to draw with")
    add("--cfg", type=float, nargs="+", default=[3.0], help="scales of guidance to draw with")
    add(
        "--images",
        type=int,
        default=0,
        help="how many pictures, at most as many as are held out, to judge for each of these",
    )
    run(parser.parse_args())


if __name__ == "__main__":
    main()
