"""Models small enough to look at every token of a session, and loops that decode them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import RefreshPolicy
from marche_fx.api.optimization import optimization_of
from marche_fx.models.mar import MAR, mask_by_order
from marche_fx.runtime.records import StepRecord
from tests.networks import Transformer, small_mar

TOKENS, WIDTH = 40, 16
N, D = 24, 16
"""Tokens and channels of `steps`."""


def records(optimized: nn.Module) -> list[StepRecord]:
    session = optimization_of(optimized).last_session
    assert session is not None
    return session.records


def positions(record: StepRecord) -> Tensor:
    """The active tokens of a step, ``[B, A]``."""
    return torch.stack([sample.nonzero()[:, 0] for sample in record.reasons])


def transformer(depth: int = 3) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TOKENS, WIDTH, 2, depth=depth).double().eval()


def inputs(steps: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    """Every token drifts a little, and three of them are replaced in each step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    found = [x]
    for _ in range(steps - 1):
        x = x + 0.01 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x[:, torch.randperm(TOKENS, generator=generator)[:3]] = torch.randn(2, 3, WIDTH, generator=generator).double()
        found.append(x)
    return [x.to(device, dtype) for x in found]


def steps(count: int = 8, *, samples: int = 2, seed: int = 3) -> list[Tensor]:
    """Inputs ``[B, N, D]`` of a decoding, of which two tokens are replaced in each step."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, N, D, generator=generator)
    found = []
    for step in range(count):
        x = x.clone()
        x[:, 2 * step : 2 * step + 2] = torch.randn(samples, 2, D, generator=generator)
        found.append(x)
    return found


@torch.no_grad()
def run(policy: RefreshPolicy, steps: int = 4, model: nn.Module | None = None) -> nn.Module:
    """A session in which two tokens are read in every step."""
    optimized = marche_fx.transform(model or transformer(2), refresh=policy, compile=False, verify=False)
    with marche_fx.decoding(optimized):
        for x in inputs(steps):
            optimized(x)[:, :2].sum()
    return optimized


def grid_mar() -> MAR:
    """6 x 6 tokens behind four class tokens."""
    torch.manual_seed(0)
    return small_mar(side=6, width=WIDTH, buffer=4).eval()


@torch.no_grad()
def decode(mar: MAR, optimized: MAR, steps: int = 6) -> None:
    """A loop like MAR's, four tokens a step, without its head."""
    generator = torch.Generator().manual_seed(0)
    orders, tokens = mar.sample_orders(2, generator), torch.randn(2, mar.seq_len, 4, generator=generator)
    with marche_fx.decoding(optimized):
        for step in range(steps):
            masks = [mask_by_order(mar.seq_len - 4 * own, orders, 2, mar.seq_len) for own in (step, step + 1)]
            x = optimized.forward_mae_encoder(tokens * (1 - masks[0])[..., None], masks[0], torch.ones(2, WIDTH))
            optimized.forward_mae_decoder(x, masks[0])[(masks[0] - masks[1]).nonzero(as_tuple=True)]
