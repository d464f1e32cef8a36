"""A masked-diffusion language model: trained in minutes on Python's own manual, decoded exactly and with cached tokens.

python examples/masked_diffusion_text.py
"""

from __future__ import annotations

import math
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx.reporting.session_report import SessionReport

MASK = 0
MANUAL = "".join(topics.values())
CHARACTERS = sorted(set(MANUAL))
"""The character with id ``i`` is ``CHARACTERS[i - 1]``."""

PROMPT = """A "break" statement executed in the first suite terminates the loop
without executing the "else" clause. """

WINDOW = 16
"""Masks filled next are chosen among so many: far ones would be filled with blanks, the most certain guess."""

SAVE_EVERY = 100


def encode(text: str) -> Tensor:
    """Ids ``[1, N]``."""
    ids = {character: number for number, character in enumerate(CHARACTERS, 1)}
    return torch.tensor([[ids[character] for character in text]])


def decode(ids: Tensor) -> str:
    return "".join("_" if number == MASK else CHARACTERS[number - 1] for number in ids[0].tolist())


def rotate(x: Tensor) -> Tensor:
    """Rotary position embedding of ``[B, H, N, D]``."""
    half = x.shape[-1] // 2
    frequencies = 10_000 ** -(torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


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
        mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class TextDiffusion(nn.Module):
    """``ids [B, N] -> logits [B, N, V]``."""

    def __init__(self, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1 + len(CHARACTERS), width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1 + len(CHARACTERS))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids))))


def train(model: TextDiffusion, run: Path | None, steps: int, tokens: int, batch: int = 8) -> None:
    """Train for so many steps in all; those that an earlier call saved in the file ``run`` are not repeated."""
    manual = encode(MANUAL)[0]
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
        starts = torch.randint(len(manual) - tokens, (batch, 1))
        text = manual[starts + torch.arange(tokens)]
        # Each sample has a prompt of its own length and, after it, its own share of masks.
        masked = torch.rand(batch, tokens) < torch.rand(batch, 1)
        masked &= torch.arange(tokens) >= torch.randint(tokens, (batch, 1))
        masked[:, -1] = True
        loss = F.cross_entropy(model(text.masked_fill(masked, MASK))[masked], text[masked])
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


def next_masks(ids: Tensor) -> Tensor:
    """The first `WINDOW` masks of each sample, whose outputs decoding reads: bool ``[B, N]``."""
    masked = ids == MASK
    return masked & (masked.cumsum(-1) <= WINDOW)


@torch.inference_mode()
def fill_in(model: nn.Module, ids: Tensor, temperature: float = 0.5, seed: int = 0) -> Tensor:
    """Sample a character for each of the next masks and keep the most certain one, until no mask is left."""
    generator = torch.Generator().manual_seed(seed)
    while (ids == MASK).any():
        certainty = model(ids)[..., 1:].log_softmax(-1)
        noise = -torch.empty(certainty.shape).exponential_(generator=generator).log()
        sampled = (certainty + temperature * noise).argmax(-1, keepdim=True)
        certainty = certainty.gather(-1, sampled).squeeze(-1).masked_fill(~next_masks(ids), -math.inf)
        surest = certainty.argmax(-1, keepdim=True)
        ids = ids.scatter(1, surest, sampled.squeeze(-1).gather(1, surest) + 1)
    return ids


def main(
    *,
    run: Path | None = Path("runs/masked_diffusion_text.pt"),
    steps: int = 2000,
    tokens: int = 192,
    prompt: str = PROMPT,
    fraction: float = 0.1,
) -> tuple[Tensor, SessionReport]:
    """The ids decoded with cached tokens, and what was computed for them."""
    torch.manual_seed(0)
    model = TextDiffusion()
    train(model, run, steps, tokens)
    model.eval()

    refresh = marche_fx.SelectiveRefresh(fraction)
    optimized = marche_fx.transform(model, refresh=refresh, query=next_masks, compile=False)
    ids = F.pad(encode(prompt), (0, tokens - len(prompt)), value=MASK)
    exact = fill_in(model, ids)
    with marche_fx.decoding(optimized):
        cached = fill_in(optimized, ids)

    print(f"exact:\n{decode(exact)}\n\ncached:\n{decode(cached)}\n")
    same = (exact == cached)[:, len(prompt) :].float().mean()
    session = marche_fx.report(optimized).session
    assert session is not None
    print(f"{same:.1%} of the new characters are the same")
    print(f"{session.rows_ratio:.1%} of the rows computed, {session.flops_ratio:.3f} of the FLOPs")
    return cached, session


if __name__ == "__main__":
    main()
