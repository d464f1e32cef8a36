"""Training of the tokenizer and of MaskGIT, each for so many seconds, on the device that the images are on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import TrainingError
from ..dataset import to_pixels
from ..fashion import Fashion
from ..optimizer import MuonWithAdamW
from ..timed_training import Tell, train_for
from .model import MaskGIT
from .tokenizer import ImageTokenizer, reconstruction_loss


@dataclass(frozen=True)
class Recipe:
    """What the two are trained with; ``label_drop`` is the share of images whose class MaskGIT is not told."""

    batch: int = 512
    tokenizer_rate: float = 2e-3
    maskgit_rate: float = 3e-3
    weight_decay: float = 0.1
    label_drop: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class CodedFashion:
    """Codes ``[M, N]`` and labels ``[M]``, both int64."""

    codes: Tensor
    labels: Tensor


def train_tokenizer(
    tokenizer: ImageTokenizer, images: Tensor, seconds: float, recipe: Recipe, *, bf16: bool, tell: Tell
) -> None:
    """Minimise the error of images ``[M, 1, 28, 28]`` uint8 after encoding and decoding."""
    generator = seeded(images.device, recipe)

    def draw_loss() -> Tensor:
        drawn = torch.randint(len(images), (recipe.batch,), generator=generator, device=images.device)
        return reconstruction_loss(tokenizer, to_pixels(images[drawn]))

    optimizer = torch.optim.AdamW(tokenizer.parameters(), weight_decay=0.0)
    train_for(seconds, tokenizer, [optimizer], draw_loss, recipe.tokenizer_rate, bf16=bf16, tell=tell)


def train_maskgit(
    model: MaskGIT, data: CodedFashion, seconds: float, recipe: Recipe, *, bf16: bool, tell: Tell
) -> None:
    """Minimise the cross-entropy of masked codes, the number of masks following decoding's cosine.

    Raises:
        TrainingError: there are no images, or see `train_for`.
    """
    if not len(data.labels):
        raise TrainingError("there are no images to train on")
    device = data.codes.device
    generator = seeded(device, recipe)

    def draw_loss() -> Tensor:
        drawn = torch.randint(len(data.labels), (recipe.batch,), generator=generator, device=device)
        dropped = torch.rand(recipe.batch, generator=generator, device=device) < recipe.label_drop
        labels = data.labels[drawn].masked_fill(dropped, model.no_label)
        return masked_loss(model, data.codes[drawn], labels, cosine_mask(recipe.batch, model.tokens, generator))

    optimizer = MuonWithAdamW(model, recipe.weight_decay)
    train_for(seconds, model, [optimizer.muon, optimizer.adamw], draw_loss, recipe.maskgit_rate, bf16=bf16, tell=tell)


def masked_loss(model: MaskGIT, codes: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of the codes ``[B, N]`` where ``mask [B, N]`` is set."""
    logits = model(codes.masked_fill(mask, model.mask_id), labels)
    # Others are ignored rather than left out: how many there are would have to be read from the device.
    targets = codes.masked_fill(~mask, -100)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)


def cosine_mask(rows: int, tokens: int, generator: torch.Generator) -> Tensor:
    """``[rows, tokens]``, true at 1..tokens random places of each row.

    As in MaskGIT's training their share is the cosine of a random angle of 0 to 90 degrees. The angles are spread
    evenly over the rows, for less variance at the same mean.
    """
    device = generator.device
    angles = (torch.arange(rows, device=device) + torch.rand(rows, generator=generator, device=device)) / rows
    counts = (angles * math.pi / 2).cos().mul(tokens).ceil().clamp(1, tokens)
    ranks = torch.rand(rows, tokens, generator=generator, device=device).argsort(-1).argsort(-1)
    return ranks < counts[:, None]


@torch.no_grad()
def held_out_loss(model: MaskGIT, data: CodedFashion, batch: int = 500) -> float:
    """`masked_loss` over all of ``data``, with the same masks whenever it is asked."""
    generator = torch.Generator(data.codes.device).manual_seed(1)
    parts = zip(data.codes.split(batch), data.labels.split(batch), strict=True)
    losses = [
        masked_loss(model, codes, labels, cosine_mask(len(codes), model.tokens, generator)) for codes, labels in parts
    ]
    return torch.stack(losses).mean().item()


def encode_fashion(tokenizer: ImageTokenizer, data: Fashion) -> CodedFashion:
    parts = [tokenizer.encode(to_pixels(part)) for part in data.images.split(2000)]
    return CodedFashion(torch.cat(parts), data.labels)


def seeded(device: torch.device, recipe: Recipe) -> torch.Generator:
    return torch.Generator(device).manual_seed(recipe.seed)
