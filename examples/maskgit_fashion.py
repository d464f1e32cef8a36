"""A MaskGIT-style image model on Fashion-MNIST: 4x4 patches as codes, decoded exactly and with cached tokens.

python examples/maskgit_fashion.py [FOLDER]     FOLDER holds Fashion-MNIST's four IDX files
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx.models import CLASSES, load_fashion
from marche_fx.models.fashion import DEBIAN_FOLDER, Fashion
from marche_fx.reporting.session_report import SessionReport

PATCH = 4
SIDE = 28 // PATCH
"""Tokens along a side of an image."""

CODES = 128
MASK = CODES
SAVE_EVERY = 100


def to_patches(images: Tensor) -> Tensor:
    """uint8 images ``[B, 1, 28, 28]`` to patches ``[B, N, PATCH * PATCH]`` in 0..1."""
    return F.pixel_unshuffle(images.float() / 255, PATCH).flatten(2).transpose(1, 2)


def to_images(codes: Tensor, codebook: Tensor) -> Tensor:
    """Codes ``[B, N]`` to images ``[B, 28, 28]``."""
    return F.pixel_shuffle(codebook[codes].transpose(1, 2).unflatten(2, (SIDE, SIDE)), PATCH)[:, 0]


def nearest(patches: Tensor, codebook: Tensor) -> Tensor:
    return torch.cdist(patches.flatten(0, -2), codebook).argmin(1).unflatten(0, patches.shape[:-1])


def make_codebook(images: Tensor, rounds: int = 20) -> Tensor:
    """``[CODES, PATCH * PATCH]`` by k-means of the images' patches."""
    patches = to_patches(images).flatten(0, 1)
    patches = patches[torch.randperm(len(patches))[:50_000]]
    codebook = patches[:CODES].clone()
    for _ in range(rounds):
        owner = nearest(patches, codebook)
        sums = torch.zeros_like(codebook).index_add_(0, owner, patches)
        counts = torch.bincount(owner, minlength=CODES)[:, None]
        # A code that owns no patch moves to some patch.
        codebook = torch.where(counts > 0, sums / counts.clamp(min=1), patches[torch.randint(len(patches), (CODES,))])
    return codebook


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class MaskGIT(nn.Module):
    """``ids [B, N], labels [B] -> logits [B, N, CODES]``."""

    codebook: Tensor

    def __init__(self, codebook: Tensor, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook)
        self.embedding = nn.Embedding(CODES + 1, width)
        self.label = nn.Embedding(len(CLASSES), width)
        self.row = nn.Parameter(torch.randn(SIDE, 1, width))
        self.column = nn.Parameter(torch.randn(SIDE, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)), nn.LayerNorm(width))
        self.head = nn.Linear(width, CODES)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        x = self.embedding(ids) + (self.row + self.column).flatten(0, 1)
        x = torch.cat([self.label(labels)[:, None], x], 1)
        return self.head(self.blocks(x)[:, 1:])


def masked_tokens(ids: Tensor, labels: Tensor) -> Tensor:
    """The tokens whose outputs MaskGIT reads; the first token is the label's."""
    return F.pad(ids == MASK, (1, 0))


def train(model: MaskGIT, data: Fashion, run: Path | None, steps: int, batch: int = 32) -> None:
    """Train for so many steps in all; those that an earlier call saved in the file ``run`` are not repeated."""
    optimizer = torch.optim.AdamW(model.parameters())
    done = 0
    if run is not None and run.is_file():
        saved = torch.load(run, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]
    torch.manual_seed(done)
    for step in range(done + 1, steps + 1):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(step / 100, 1) * math.cos(math.pi / 2 * step / (steps + 1))
        drawn = torch.randint(len(data), (batch,))
        ids = nearest(to_patches(data.images[drawn]), model.codebook)
        # The share of masks follows decoding's schedule: a cosine, mostly masked images being the more frequent.
        masked = torch.rand(ids.shape) < torch.cos(torch.rand(batch, 1) * math.pi / 2)
        masked[:, 0] = True
        loss = F.cross_entropy(model(ids.masked_fill(masked, MASK), data.labels[drawn])[masked], ids[masked])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % SAVE_EVERY == 0 or step == steps:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", flush=True)
            if run is not None:
                run.parent.mkdir(parents=True, exist_ok=True)
                unfinished = run.with_suffix(".unfinished")
                state = {"done": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, unfinished)
                unfinished.replace(run)


def gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return -torch.empty(shape).exponential_(generator=generator).log()


@torch.inference_mode()
def generate(model: nn.Module, labels: Tensor, steps: int, temperature: float = 4.0, seed: int = 0) -> Tensor:
    """MaskGIT's decoding: sample every masked code, keep the most certain, mask the others again: ``[B, N]``."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(labels), SIDE**2), MASK)
    for step in range(1, steps + 1):
        logits = model(ids, labels)
        masked = ids == MASK
        sampled = (logits + gumbel(logits.shape, generator)).argmax(-1)
        certainty = logits.log_softmax(-1).gather(2, sampled[..., None])[..., 0]
        certainty += temperature * (1 - step / steps) * gumbel(certainty.shape, generator)
        ids = torch.where(masked, sampled, ids)
        hidden = int(SIDE**2 * math.cos(math.pi / 2 * step / steps))
        least_certain = certainty.masked_fill(~masked, math.inf).topk(hidden, largest=False).indices
        ids = ids.scatter(1, least_certain, MASK)
    return ids


def save_picture(path: Path, rows: dict[str, Tensor]) -> None:
    """Rows of images ``[B, 28, 28]``, one below the other."""
    count = max(map(len, rows.values()))
    figure = Figure(figsize=(count, 1.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_title(name, loc="left", fontsize=8)
        for place, image in zip(line, images, strict=True):
            place.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1)
            place.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(
    data: Fashion | None = None,
    *,
    run: Path | None = Path("runs/maskgit_fashion.pt"),
    out: Path = Path("runs/maskgit_fashion.png"),
    train_steps: int = 1500,
    decoding_steps: int = 16,
    fraction: float = 0.1,
) -> tuple[Tensor, SessionReport]:
    """The codes decoded with cached tokens, and what was computed for them."""
    torch.manual_seed(0)
    data = load_fashion(DEBIAN_FOLDER) if data is None else data
    model = MaskGIT(make_codebook(data.images[:2000]))
    train(model, data, run, train_steps)
    model.eval()

    optimized = marche_fx.transform(
        model, refresh=marche_fx.SelectiveRefresh(fraction), query=masked_tokens, compile=False
    )
    labels = torch.arange(len(CLASSES))
    exact = generate(model, labels, decoding_steps)
    with marche_fx.decoding(optimized):
        cached = generate(optimized, labels, decoding_steps)

    save_picture(out, {"exact": to_images(exact, model.codebook), "cached": to_images(cached, model.codebook)})
    session = marche_fx.report(optimized).session
    assert session is not None
    print(f"{(exact == cached).float().mean():.1%} of the codes are the same; {out} shows both")
    print(f"{session.rows_ratio:.1%} of the rows computed, {session.flops_ratio:.3f} of the FLOPs")
    return cached, session


if __name__ == "__main__":
    main(load_fashion(Path(sys.argv[1])) if len(sys.argv) > 1 else None)
