"""The diffusion head of MAR: a residual MLP that denoises each token given the transformer's vector for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..denoising.spacing import evenly_spaced
from .diffusion import GaussianDiffusion, cosine_betas


def linears(module: nn.Module) -> Iterator[nn.Linear]:
    return (part for part in module.modules() if isinstance(part, nn.Linear))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class TimestepEmbedder(nn.Module):
    """Sines and cosines of the timestep, then a small MLP: ``[R] -> [R, D]``."""

    def __init__(self, hidden_size: int, frequency_embedding_size: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(frequency_embedding_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.frequency_embedding_size = frequency_embedding_size

    def forward(self, t: Tensor) -> Tensor:
        half = self.frequency_embedding_size // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
        angles = t[:, None].float() * frequencies
        dtype = next(self.parameters()).dtype
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1).to(dtype))


class ResBlock(nn.Module):
    """Normalise, modulate by the condition, MLP, gated residual: ``x [R, D], y [R, D] -> [R, D]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 3 * channels))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=-1)
        return x + gate * self.mlp(modulate(self.in_ln(x), shift, scale))


class FinalLayer(nn.Module):
    """Modulated norm and projection: ``x [R, D], c [R, D] -> [R, out]``."""

    def __init__(self, model_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(model_channels, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(model_channels, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(model_channels, 2 * model_channels))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class SimpleMLPAdaLN(nn.Module):
    """The denoiser: noisy token ``x [R, C]``, timestep ``t [R]``, condition ``c [R, Z]`` to ``[R, 2C]``."""

    def __init__(self, in_channels: int, model_channels: int, z_channels: int, num_res_blocks: int) -> None:
        super().__init__()
        self.time_embed = TimestepEmbedder(model_channels)
        self.cond_embed = nn.Linear(z_channels, model_channels)
        self.input_proj = nn.Linear(in_channels, model_channels)
        self.res_blocks = nn.ModuleList(ResBlock(model_channels) for _ in range(num_res_blocks))
        self.final_layer = FinalLayer(model_channels, 2 * in_channels)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Xavier everywhere; modulations and the output start at zero, so that each block starts as the identity."""
        for linear in linears(self):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in linears(self.time_embed):
            nn.init.normal_(linear.weight, std=0.02)
        modulations = [part.adaLN_modulation for part in self.modules() if isinstance(part, (ResBlock, FinalLayer))]
        for part in [*modulations, self.final_layer.linear]:
            for linear in linears(part):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        x = self.input_proj(x)
        y = self.time_embed(t) + self.cond_embed(c)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)

    def forward_with_cfg(self, x: Tensor, t: Tensor, c: Tensor, cfg_scale: float) -> Tensor:
        """Guided noise; the first half of the rows is conditional, the second half unconditional, with equal ``x``."""
        half = x[: len(x) // 2]
        noise, position = self.forward(torch.cat([half, half]), t, c).chunk(2, dim=-1)
        conditional, unconditional = noise.chunk(2)
        guided = unconditional + cfg_scale * (conditional - unconditional)
        return torch.cat([torch.cat([guided, guided]), position], -1)


class Unguided:
    """The network under the conditions ``z [R, Z]``, as a sampler calls it: computed in the dtype of ``z``."""

    def __init__(self, net: SimpleMLPAdaLN, z: Tensor) -> None:
        self.net = net
        self.z = z

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x.to(self.z.dtype), t, self.z).to(x.dtype)


class Guided:
    """The same with guidance; the first half of ``z [R, Z]`` is conditional, the second unconditional."""

    def __init__(self, net: SimpleMLPAdaLN, z: Tensor, cfg: float) -> None:
        self.net = net
        self.z = z
        self.cfg = cfg
        self.unguided = Unguided(net, z[: len(z) // 2])
        """The conditional half alone."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net.forward_with_cfg(x.to(self.z.dtype), t, self.z, self.cfg).to(x.dtype)


class DiffLoss(nn.Module):
    """Loss and sampler of a token under the head.

    Args:
        target_channels: channels C of a token. z_channels: width Z of the transformer's vectors.
        depth, width: residual blocks of the head and their width.
        num_sampling_steps: denoising steps when sampling; training always uses the 1000 steps of the schedule.
        limit: largest absolute value that a token may have, where there is one.
    """

    def __init__(
        self,
        target_channels: int,
        z_channels: int,
        depth: int,
        width: int,
        num_sampling_steps: int | str,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = target_channels
        self.net = SimpleMLPAdaLN(target_channels, width, z_channels, depth)
        betas = cosine_betas()
        self.train_diffusion = GaussianDiffusion(betas)
        self.gen_diffusion = GaussianDiffusion(betas, evenly_spaced(len(betas), int(num_sampling_steps)), limit)

    def forward(self, target: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean loss over rows of ``target [R, C]`` given ``z [R, Z]``, weighted by ``mask [R]`` where given."""
        index = torch.randint(len(self.train_diffusion), (len(target),), device=target.device)

        def denoiser(x: Tensor, t: Tensor) -> Tensor:
            return self.net(x, t, z).to(target.dtype)

        loss = self.train_diffusion.loss(denoiser, target, index, torch.randn_like(target))
        return loss.mean() if mask is None else (loss * mask).sum() / mask.sum()

    def sample(
        self,
        z: Tensor,
        temperature: float = 1.0,
        cfg: float = 1.0,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw a token for each row of ``z [R, Z]``: ``[R, C]``.

        With ``cfg != 1`` the first half of ``z`` is conditional and the second unconditional; the first half of the
        result holds the guided tokens. ``noise`` ``[S, R, C]`` (``[S, R / 2, C]`` with guidance) fixes every draw; else
        it comes from ``generator`` or the global seed.
        """
        guided = cfg != 1.0
        if noise is None:
            shape = (len(self.gen_diffusion), len(z) // 2 if guided else len(z), self.in_channels)
            # A hundred small steps add up: they are taken in float32 whatever the network computes in.
            dtype = torch.promote_types(z.dtype, torch.float32)
            noise = torch.randn(shape, device=z.device, dtype=dtype, generator=generator)

        if not guided:
            return self.gen_diffusion.sample(Unguided(self.net, z), noise, temperature)
        return self.gen_diffusion.sample(Guided(self.net, z, cfg), torch.cat([noise, noise], 1), temperature)
