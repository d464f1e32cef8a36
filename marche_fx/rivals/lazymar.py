"""LazyMAR's schedule and head (Yan et al. 2025, arXiv 2503.12450, and its code); the head reuses most of itself.

Denoising steps are counted down. The first one and every seventh are computed in full; in between

- the conditional half of guidance is computed alone, and the unconditional one is it less their last difference;
- blocks 1 to 4 are skipped: what one last added is added again;
- other blocks compute shift, scale and gate, and reuse what their MLP last gave. Among the first tenth of the denoising
  steps they compute that, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..models.diffusion import Denoiser, GaussianDiffusion
from ..models.head import Guided, ResBlock, SimpleMLPAdaLN, Unguided, modulate
from ..refresh import DriftRefresh, RefreshPolicy, SelectiveRefresh
from .sampler import Sampler, SamplerAt

EVERY = 7
SKIPPED = range(1, 5)
"""Blocks, counted from 0."""

WARM_UP = 0.1
"""Share of the denoising steps."""


class LazyDenoiser:
    """The network under one condition, called at ``count`` timesteps, the noisiest first.

    Args:
        z: ``[R, Z]``, with guidance the conditional rows and then the unconditional ones. cfg: guidance scale, None for
            no guidance.
    """

    def __init__(self, net: SimpleMLPAdaLN, z: Tensor, cfg: float | None, count: int) -> None:
        self.net = net
        self.z = z
        self.cfg = cfg
        self.count = count
        self.left = count
        """Denoising steps that are still to come."""
        self.added: dict[int, Tensor] = {}
        """What each block last added to its input."""
        self.mlps: dict[int, Tensor] = {}
        """What the MLP of each block last gave."""
        self.difference = torch.empty(0)
        """Conditional less unconditional noise."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """``x [R, C], t [R]`` to ``[R, 2C]``."""
        self.left -= 1
        given = x.to(self.z.dtype)
        output = self.network(given, t, self.z) if self.cfg is None else self.guided(given, t, self.cfg)
        return output.to(x.dtype)

    @property
    def is_full(self) -> bool:
        return self.left == self.count - 1 or self.left % EVERY == 0

    @property
    def is_first(self) -> bool:
        """Whether the step is among those at the start in which MLPs are computed."""
        return self.left > (1 - WARM_UP) * self.count

    def guided(self, x: Tensor, t: Tensor, cfg: float) -> Tensor:
        """As `SimpleMLPAdaLN.forward_with_cfg`, or of the conditional half alone."""
        rows = len(x) // 2
        half = x[:rows]
        if self.is_full:
            noise, position = self.network(torch.cat([half, half]), t, self.z).chunk(2, -1)
            conditional, unconditional = noise.chunk(2)
            self.difference = conditional - unconditional
        else:
            conditional, position = self.network(half, t[:rows], self.z[:rows]).chunk(2, -1)
            unconditional = conditional - self.difference
            position = torch.cat([position, position])
        noise = unconditional + cfg * self.difference
        return torch.cat([torch.cat([noise, noise]), position], -1)

    def network(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """``x [R, C], t [R], c [R, Z]`` to ``[R, 2C]``, of all rows or of the first of them."""
        x = self.net.input_proj(x)
        y = self.net.time_embed(t) + self.net.cond_embed(c)
        for number, block in enumerate(self.net.res_blocks):
            if number in SKIPPED and not self.is_full:
                x = x + self.added[number][: len(x)]
                continue
            assert isinstance(block, ResBlock)
            before, x = x, self.block(number, block, x, y)
            if number in SKIPPED:
                self.added[number] = x - before
        output: Tensor = self.net.final_layer(x, y)
        return output

    def block(self, number: int, block: ResBlock, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = block.adaLN_modulation(y).chunk(3, dim=-1)
        if self.is_full or self.is_first:
            self.mlps[number] = block.mlp(modulate(block.in_ln(x), shift, scale))
        return x + gate * self.mlps[number][: len(x)]


class LazySampler:
    """Samples as ``own`` does, with a `LazyDenoiser`."""

    def __init__(self, own: GaussianDiffusion) -> None:
        self.own = own

    def __len__(self) -> int:
        return len(self.own)

    def sample(self, denoiser: Denoiser, noise: Tensor, temperature: float = 1.0) -> Tensor:
        if not isinstance(denoiser, Guided | Unguided):
            raise ArgumentError(f"LazyMAR's head is written for MAR's denoiser, got {type(denoiser).__name__}")
        cfg = denoiser.cfg if isinstance(denoiser, Guided) else None
        return self.own.sample(LazyDenoiser(denoiser.net, denoiser.z, cfg, len(self)), noise, temperature)


def policies() -> dict[str, RefreshPolicy]:
    """Of both halves of the transformer, as docs/policies.md has it."""
    return {
        "forward_mae_encoder": SelectiveRefresh(0.0, warmup=5, every=9),
        "forward_mae_decoder": DriftRefresh(0.1, warmup=5, every=9, exact_sites=3),
    }


def lazymar(own: GaussianDiffusion) -> SamplerAt:
    """LazyMAR's sampler in place of ``own``."""
    sampler: Sampler = LazySampler(own)
    return lambda step, of: sampler
