"""Train the autoencoder, `mar_emoji` and the judge of emoji: ``python -m marche_fx.models.emoji.training``."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...saving.files import weights_hash, write_json
from ...saving.locks import held_folder
from ...stopping import run_command
from ..checkpoint import load_checkpoint, save_weights
from ..dataset import LabelledImages
from ..judge import FEATURES_FILE, JUDGE_FILE, Judge, save_features, train_judge
from ..mar import MAR
from ..presets import mar_emoji
from ..train import WEIGHTS_FILE, Recipe, train
from .autoencoder import AUTOENCODER_FILE, Autoencoder
from .autoencoding import encode_all, encode_both_ways, reconstruction, signal_to_noise, train_autoencoder
from .dataset import Emoji, load_emoji
from .drawing import COLUMNS, generate, save_pictures, save_reconstructions, shuffled
from .judge import RECIPE as JUDGE_RECIPE
from .judge import GroupAndSubgroup, emoji_judge
from .names import KINDS_FILE

RECIPE = Recipe(epochs=10_000, batch=512, learning_rate=1e-3, warmup=300, weight_decay=0.02, clip=1.0, ema_power=17.0)

LOOK_EVERY = 25


class OneOfTwo(nn.Module):
    """The loss of ``model`` on one of the two ways to see a picture, drawn at random: ``[B, 2, C, h, w]``."""

    def __init__(self, model: MAR) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        second = torch.rand(len(latents), 1, 1, 1, device=latents.device) < 0.5
        return self.model(torch.where(second, latents[:, 1], latents[:, 0]), labels)


def train_emoji(
    latents: LabelledImages,
    out: Path,
    device: torch.device,
    *,
    minutes: float,
    recipe: Recipe = RECIPE,
    compile: bool = False,
    weights: Path | None = None,
    **options: int,
) -> MAR:
    """`mar_emoji` with ``options``, trained on ``device`` in the folder ``out`` for so many minutes, resumable.

    Args:
        latents: ``[M, 2, C, h, w]``, those of a picture and of its mirror image.
        compile: the repeated blocks; what cannot be compiled runs as it is, and a warning says so.
        weights: a file that is written whenever the state of the training is.
    """
    torch.manual_seed(recipe.seed)

    def keep(averaged: OneOfTwo) -> None:
        if weights is not None:
            save_weights(averaged.model, weights)

    with torch._dynamo.config.patch(suppress_errors=True):
        return train(
            OneOfTwo(mar_emoji(**options)).to(device),
            latents,
            out,
            recipe,
            bf16=True,
            compile=compile,
            checkpoint_seconds=60,
            minutes=minutes,
            look_every=LOOK_EVERY,
            prepare=Tensor.float,
            keep=keep,
        ).model


def train_emoji_judge(emoji: Emoji, out: Path, device: torch.device, recipe: Recipe = JUDGE_RECIPE) -> Judge:
    """The judge of emoji, trained on ``device`` in the folder ``out``, with the statistics of the held-out pictures."""
    torch.manual_seed(recipe.seed)
    loss = GroupAndSubgroup(emoji_judge(), emoji.group_of).to(device)
    return train_judge(emoji.training, emoji.held_out, out, recipe, loss=loss, bf16=True, look_every=LOOK_EVERY)


@torch.no_grad()
def mean_loss(model: MAR, latents: LabelledImages, batch: int = 256, passes: int = 2) -> float:
    """Of all ``latents`` ``[M, C, h, w]`` under as many draws of masks and noise, the same for every model."""
    torch.manual_seed(0)
    parts = list(zip(latents.images.split(batch), latents.labels.split(batch), strict=True)) * passes
    losses = [model(some, labels) * len(labels) for some, labels in parts]
    return torch.stack(losses).sum().item() / (passes * len(latents))


def run(given: argparse.Namespace) -> None:
    """Train what is asked for, write the weights, then draw with them as they are stored; alone in their folder."""
    with held_folder(given.out, "training"):
        train_and_draw(given)


def train_and_draw(given: argparse.Namespace) -> None:
    # The products of float32 matrices, which sampling is made of, may be as coarse as those of training.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True  # Few shapes, seen thousands of times.
    device = torch.device(given.device)
    emoji = load_emoji(given.data)
    write_json(given.out / KINDS_FILE, [asdict(kind) for kind in emoji.kinds])
    folder = given.run or given.out
    if given.judge:
        with told("judge"):
            judge = train_emoji_judge(emoji, folder / "judge", device)
        save_weights(judge, given.out / JUDGE_FILE)
        save_features(judge, emoji.held_out.to(device), given.out / FEATURES_FILE)
    if given.autoencoder_minutes > 0:
        with told("autoencoder"):
            trained = train_autoencoder(emoji, folder / "autoencoder", device, minutes=given.autoencoder_minutes)
        save_weights(trained, given.out / AUTOENCODER_FILE)
    autoencoder = load_checkpoint(Autoencoder(), given.out / AUTOENCODER_FILE).to(device).eval()
    tell_reconstructions(autoencoder, emoji, given.out)
    if given.minutes > 0:
        recipe = replace(RECIPE, batch=given.batch, learning_rate=given.learning_rate)
        # A MAR of other latents is another run.
        own = folder / f"mar-{weights_hash(autoencoder)[:8]}"
        latents = encode_both_ways(autoencoder, emoji, emoji.training)
        with told("MAR"):
            train_emoji(
                latents,
                own,
                device,
                minutes=given.minutes,
                recipe=recipe,
                compile=given.compile,
                weights=given.out / WEIGHTS_FILE,
            )
    mar = load_checkpoint(mar_emoji(), given.out / WEIGHTS_FILE).to(device).eval()
    tell_losses(mar, autoencoder, emoji)
    labels = torch.arange(len(emoji.subgroups), device=device)
    for steps, cfg, temperature in itertools.product(given.steps, given.cfg, given.temperature):
        grid = generate(mar, autoencoder, labels, steps=steps, cfg=cfg, temperature=temperature)
        save_pictures(grid, given.out / f"pictures_{steps}_steps_cfg_{cfg:g}_temperature_{temperature:g}.png")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Print how long the training of ``what`` took."""
    started = time.monotonic()
    print(f"training the {what}", flush=True)
    yield
    print(f"trained the {what} in {time.monotonic() - started:.0f} s", flush=True)


def tell_reconstructions(autoencoder: Autoencoder, emoji: Emoji, out: Path) -> None:
    """How well pictures survive the autoencoder, in decibels; some held-out ones are drawn."""
    held_out = shuffled(emoji.held_out, len(emoji.held_out)).images
    seen = shuffled(emoji.training, len(held_out)).images
    decoded = reconstruction(autoencoder, held_out)
    before, after = signal_to_noise(reconstruction(autoencoder, seen), seen), signal_to_noise(decoded, held_out)
    print(f"reconstructions: {before:.1f} dB on pictures seen, {after:.1f} dB on held-out ones", flush=True)
    shown = 4 * COLUMNS
    save_reconstructions(decoded[:shown], held_out[:shown], out / "reconstructions.png")


def tell_losses(mar: MAR, autoencoder: Autoencoder, emoji: Emoji) -> None:
    """The loss on as many pictures seen as are held out, and on these."""
    device = autoencoder.latent_mean.device

    def loss(images: LabelledImages) -> float:
        return mean_loss(mar, LabelledImages(encode_all(autoencoder, images.images), images.labels.to(device)))

    seen = shuffled(emoji.training, len(emoji.held_out))
    print(f"loss {loss(seen):.4f} on pictures seen, {loss(emoji.held_out):.4f} on held-out ones", flush=True)


def main() -> None:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    parser = argparse.ArgumentParser(description="Train the autoencoder and the MAR of emoji, and their judge.")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="what python -m marche_fx.models.emoji.pictures made")
    add("--out", type=Path, required=True, help="folder for weights and pictures")
    add("--run", type=Path, help="folder of the runs, which go on if found there; --out when omitted")
    add("--judge", action="store_true", help="train the judge, before all else")
    add(
        "--autoencoder-minutes",
        type=float,
        default=1.2,
        help="of training the autoencoder; 0 for none, to use the weights in --out",
    )
    add("--minutes", type=float, default=6.0, help="of training the MAR; 0 for none, to use the weights in --out")
    add("--batch", type=int, default=RECIPE.batch, help="pictures in a step of training the MAR")
    add("--learning-rate", type=float, default=RECIPE.learning_rate, help="of the MAR, at its highest")
    add("--compile", action="store_true", help="torch.compile the MAR's repeated blocks")
    add("--device", default=str(accelerator or "cpu"), help="where to train and to draw")
    add("--steps", type=int, nargs="+", default=[64], help="decoding steps to draw with")
    add("--cfg", type=float, nargs="+", default=[1.5, 3.0], help="scales of guidance to draw with")
    add("--temperature", type=float, nargs="+", default=[0.9, 1.0], help="of the head, to draw with")
    run(parser.parse_args())


if __name__ == "__main__":
    run_command(main)
