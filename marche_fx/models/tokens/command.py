"""Training of the garments' tokenizer and MaskGIT from a data folder to a file of weights, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import torch
from torch import Tensor

from ...saving.locks import alone
from ...saving.refused import writing
from ..bundled import load_judge
from ..checkpoint import save_weights
from ..dataset import to_pixels
from ..fashion import CLASSES, Fashion, load_fashion
from ..timed_training import Tell
from ..train import WEIGHTS_FILE
from .choosing import Judged, judge_decodings
from .garments import TokenGarments
from .tokenizer import ImageTokenizer
from .training import CodedFashion, Recipe, encode_fashion, held_out_loss, train_maskgit, train_tokenizer

LOG_FILE = "training.log"
PICTURE_FILE = "samples.png"
TOKENIZER_SHARE, MASKGIT_SHARE = 0.15, 0.7
"""Of the time; the rest is for judging decodings."""

HELD_OUT = 1000
"""Of so many test images the losses are told, and distances, which compare at equal numbers of images only."""

Say = Callable[[str], None]


@alone("training")
def run_training(
    data: Path, out: Path, recipe: Recipe, *, minutes: float, device: torch.device, bf16: bool, per_class: int = 100
) -> None:
    """Train both models on the images in the folder ``data``; write weights, a log and a picture to ``out``."""
    began = time.monotonic()
    training = load_fashion(data).to(device)
    test = first(load_fashion(data, "t10k"), HELD_OUT).to(device)
    say = log_to(out / LOG_FILE)
    torch.manual_seed(recipe.seed)
    garments = TokenGarments().to(device)
    say(f"{device}, {minutes:g} minutes, {recipe}; read and built in {time.monotonic() - began:.1f} s")

    seconds = 60 * minutes - (time.monotonic() - began)
    tell = progress(say, "tokenizer", lambda: "")
    train_tokenizer(garments.tokenizer, training.images, TOKENIZER_SHARE * seconds, recipe, bf16=bf16, tell=tell)
    round_to_half(garments)  # The codes that MaskGIT learns are those of the weights as they are stored.
    coded, held_out = encode_fashion(garments.tokenizer, training), encode_fashion(garments.tokenizer, test)
    describe_codes(say, garments.tokenizer, held_out, test)

    maskgit = garments.maskgit

    def look() -> str:
        save_weights(garments, out / WEIGHTS_FILE)
        maskgit.eval()
        loss = held_out_loss(maskgit, held_out)
        maskgit.train()
        return f", held out {loss:.4f}"

    left = 60 * minutes - (time.monotonic() - began)
    share = MASKGIT_SHARE / (1 - TOKENIZER_SHARE)
    train_maskgit(maskgit, coded, share * left, recipe, bf16=bf16, tell=progress(say, "MaskGIT", look))
    round_to_half(garments)
    save_weights(garments, out / WEIGHTS_FILE)

    best = choose(say, garments, per_class, until=began + 60 * minutes)
    draw_picture(garments, test, best, min(8, per_class), out / PICTURE_FILE)
    say(f"weights, log and picture are in {out}, after {time.monotonic() - began:.0f} s")


def log_to(path: Path) -> Say:
    """Print lines, with the time, and append them to a file."""

    def say(line: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {line}"
        print(line, flush=True)
        with writing(path), path.open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    return say


def progress(say: Say, name: str, more: Callable[[], str]) -> Tell:
    def tell(share: float, step: int, loss: float) -> None:
        say(f"{name}: {share:.0%} of the time, step {step}, loss {loss:.4f}{more()}")

    return tell


def first(data: Fashion, count: int) -> Fashion:
    return Fashion(data.images[:count], data.labels[:count])


def round_to_half(garments: TokenGarments) -> None:
    """Give the parameters the values that `save_weights` writes."""
    with torch.no_grad():
        for parameter in garments.parameters():
            parameter.copy_(parameter.half())


def describe_codes(say: Say, tokenizer: ImageTokenizer, coded: CodedFashion, images: Fashion) -> None:
    """Say how good the images are that codes are decoded to, and how evenly codes are used."""
    judge = load_judge().to(images.images.device)
    pixels, painted = to_pixels(images.images), tokenizer.decode(coded.codes)
    shares = coded.codes.flatten().bincount(minlength=tokenizer.codes) / coded.codes.numel()
    entropy = -torch.special.xlogy(shares, shares).sum().item()
    say(
        f"held-out images after encoding: mean squared error {(painted - pixels).square().mean().item():.5f}; "
        f"{int((shares > 0).sum())} of {tokenizer.codes} codes are used, their entropy is {entropy:.3f} nats"
    )
    for name, own in (("as they are", pixels), ("after encoding", painted)):
        distance, accuracy = judge.frechet_distance(own), judge.accuracy(own, images.labels)
        say(f"{len(own)} held-out images {name}: Frechet distance {distance:.3f}, labels right {accuracy:.3f}")


def choose(say: Say, garments: TokenGarments, per_class: int, until: float) -> Judged:
    """The decoding of the smallest distance among as many as there is time for, one at least."""
    judge = load_judge().to(next(garments.parameters()).device)
    judged: list[Judged] = []
    for own in judge_decodings(garments, judge, per_class):
        judged.append(own)
        say(f"{own.decoding}: Frechet distance {own.distance:.3f}, labels right {own.accuracy:.3f}")
        if time.monotonic() > until:
            break
    return min(judged, key=lambda own: own.distance)


def draw_picture(garments: TokenGarments, test: Fashion, best: Judged, rows: int, path: Path) -> None:
    """A row of images, a row of them after encoding, and rows generated; a column for each class."""
    first = torch.stack([test.images[test.labels == number][0] for number in range(len(CLASSES))])
    pixels = to_pixels(first)
    labels = torch.arange(len(CLASSES), device=pixels.device).repeat(rows)
    generator = torch.Generator(pixels.device).manual_seed(1)
    generated = garments.sample(labels, best.decoding, generator=generator)
    lines = torch.cat([pixels, garments.tokenizer.decode(garments.tokenizer.encode(pixels)), generated])
    matplotlib.image.imsave(path, tile(lines, len(CLASSES)).cpu().numpy(), cmap="gray_r", vmin=-1, vmax=1)


def tile(images: Tensor, columns: int) -> Tensor:
    """``[M, 1, H, W]`` to one image ``[M / columns * H, columns * W]``."""
    return images.unflatten(0, (-1, columns))[:, :, 0].transpose(1, 2).flatten(2).flatten(0, 1)
