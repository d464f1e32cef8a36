"""Small denoisers that differ in how time and condition reach the noisy value, and what they must compute.

Each says itself, in `slow_values`, what of it depends on time and condition and is a product, so that the oracle beside
need not ask a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("adaln", "film", "joined", "twice", "blank", "scalar")


class Held:
    """What is held of residual branches: nothing here."""

    def branch(self, number: int, compute: Callable[..., Tensor], *args: Any) -> Tensor:
        """The whole of a branch, with its gate."""
        return compute(*args)

    def product(self, number: int, compute: Callable[..., Tensor], *args: Any) -> Tensor:
        """The product in it."""
        return compute(*args)


class Denoiser(nn.Module):
    """``x [R, C], t [R], c [R, Z]`` to ``[R, C]``.

    Args:
        kind: ``adaln``: shift, scale and gate of time and condition; ``film``: of a product of both; ``joined``: time
            and condition joined by `cat`; ``twice``: the condition joins the noisy value too; ``blank``: a row of zeros
            for each row is in it; ``scalar``: the time comes without rows.
    """

    def __init__(self, kind: str, depth: int = 2, channels: int = 3, width: int = 6, condition: int = 5) -> None:
        super().__init__()
        self.kind = kind
        self.time = nn.Linear(4, width)
        self.condition = nn.Linear(condition, width)
        self.enter = nn.Linear(channels + (condition if kind == "twice" else 0), width)
        self.modulations = nn.ModuleList(
            nn.Linear(2 * width if kind == "joined" else width, 3 * width) for _ in range(depth)
        )
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, channels)

    def slow_values(self, t: Tensor, c: Tensor) -> list[Tensor]:
        """What each layer is modulated by, as the last product gives it."""
        waves = t[..., None] * torch.tensor([0.011, 0.002, 0.0007, 0.003], dtype=c.dtype)
        u, v = self.time(torch.cat([waves[..., :2].sin(), waves[..., 2:].cos()], -1)), self.condition(c)
        if self.kind == "blank":
            u = u + torch.zeros(len(t), 1)
        y = torch.cat([u, v], -1) if self.kind == "joined" else u * v if self.kind == "film" else u + v
        return [modulation(F.silu(y)) for modulation in self.modulations]

    def rest(self, x: Tensor, c: Tensor, slow: Sequence[Tensor], held: Held | None = None) -> Tensor:
        held = held or Held()
        h = self.enter(torch.cat([x, c], -1) if self.kind == "twice" else x)
        for number in range(len(self.layers)):
            h = h + held.branch(number, self.branch, number, h, slow[number], held)
        return self.leave(h)

    def branch(self, number: int, h: Tensor, modulation: Tensor, held: Held) -> Tensor:
        shift, scale, gate = modulation.chunk(3, -1)
        product = held.product(number, self.product, number, h, shift, scale)
        return torch.tanh(gate) * product

    def product(self, number: int, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        found: Tensor = self.layers[number](F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift)
        return found

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self.rest(x, c, self.slow_values(t, c))

    def forward_with_cfg(self, x: Tensor, t: Tensor, c: Tensor, scale: float) -> Tensor:
        half = x[: len(x) // 2]
        found = self.forward(torch.cat([half, half]), t, c)
        conditional, unconditional = found.chunk(2)
        guided = unconditional + scale * (conditional - unconditional)
        return torch.cat([guided, guided])


class Model(nn.Module):
    """A model whose head is a denoiser, with the loop that calls it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


def denoised(
    denoise: Callable[..., Tensor], x: Tensor, times: Sequence[int], c: Tensor, *others: float, scalar: bool = False
) -> list[Tensor]:
    """What each call of a loop gave; the noisy value moves with it."""
    found = []
    for time in times:
        t = torch.tensor(time) if scalar else torch.full((len(x),), time)
        found.append(denoise(x, t, c, *others))
        x = 0.9 * x + 0.1 * found[-1]
    return found
