"""A diffusion with the interface of the official MAR's `SpacedDiffusion`, from its definition, on any device.

Of guided-diffusion's class it has what MAR's head uses: the names of its tables, a network that predicts noise and a
place between the two bounds of the variance, respacing by a set of timesteps. Tables are NumPy's, values float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marche_fx.models.diffusion import cosine_betas
from marche_fx.models.head import SimpleMLPAdaLN

KIND = "epsilon"


def read(table: np.ndarray, t: Tensor) -> Tensor:
    return torch.from_numpy(table).to(t.device)[t].float()[:, None]


class SpacedDiffusion:
    def __init__(
        self,
        use_timesteps: Collection[int],
        *,
        betas: np.ndarray,
        model_mean_type: str,
        model_var_type: str,
        loss_type: str,
    ) -> None:
        if model_mean_type != KIND:
            raise NotImplementedError(model_mean_type)
        self.model_mean_type, self.model_var_type, self.loss_type = model_mean_type, model_var_type, loss_type
        self.use_timesteps = set(use_timesteps)
        self.timestep_map = sorted(self.use_timesteps)
        self.original_num_steps = len(betas)
        self.alphas_cumprod = np.cumprod(1 - np.asarray(betas, dtype=np.float64))[self.timestep_map]
        before = np.append(1.0, self.alphas_cumprod[:-1])
        self.betas = 1 - self.alphas_cumprod / before
        self.num_timesteps = len(self.betas)
        variance = self.betas * (1 - before) / (1 - self.alphas_cumprod)
        self.log_smallest = np.log(np.append(variance[1], variance[1:]))
        self.of_start = self.betas * np.sqrt(before) / (1 - self.alphas_cumprod)
        self.of_current = (1 - before) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)

    def p_mean_variance(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
        model_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        output = model(x, torch.tensor(self.timestep_map, device=t.device)[t], **(model_kwargs or {}))
        noise, place = output.chunk(2, 1)
        share = (place + 1) / 2
        log_variance = share * read(np.log(self.betas), t) + (1 - share) * read(self.log_smallest, t)
        signal = read(self.alphas_cumprod, t)
        start = (1 / signal).sqrt() * x - (1 / signal - 1).sqrt() * noise
        start = start if denoised_fn is None else denoised_fn(start)
        start = start.clamp(-1, 1) if clip_denoised else start
        mean = read(self.of_start, t) * start + read(self.of_current, t) * x
        return {"mean": mean, "log_variance": log_variance, "pred_xstart": start}

    def p_sample(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
        cond_fn: Callable[..., Tensor] | None = None,
        model_kwargs: dict[str, Any] | None = None,
        temperature: float = 1.0,
    ) -> dict[str, Tensor]:
        found = self.p_mean_variance(model, x, t, clip_denoised, denoised_fn, model_kwargs)
        mean = found["mean"]
        if cond_fn is not None:
            mean = mean + found["log_variance"].exp() * cond_fn(x, t)
        noise = torch.randn_like(x)
        added = (t != 0).float()[:, None] * torch.exp(0.5 * found["log_variance"]) * noise * temperature
        return {"sample": mean + added, "pred_xstart": found["pred_xstart"]}

    def p_sample_loop(
        self,
        model: Callable[..., Tensor],
        shape: tuple[int, ...],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
        cond_fn: Callable[..., Tensor] | None = None,
        model_kwargs: dict[str, Any] | None = None,
        device: torch.device | None = None,
        progress: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        x = torch.randn(*shape) if noise is None else noise
        with torch.no_grad():
            for i in reversed(range(self.num_timesteps)):
                t = torch.tensor([i] * shape[0], device=x.device)
                own = self.p_sample(model, x, t, clip_denoised, denoised_fn, cond_fn, model_kwargs, temperature)
                x = own["sample"]
        return x


def create_diffusion(steps: int, whole: int = 1000) -> SpacedDiffusion:
    """``steps`` evenly spaced timesteps, rounded as the official code rounds: a stride is added up."""
    kept, place = [], 0.0
    for _ in range(steps):
        kept.append(round(place))
        place += (whole - 1) / (steps - 1)
    kinds = {"model_mean_type": KIND, "model_var_type": "learned_range", "loss_type": "mse"}
    return SpacedDiffusion(kept, betas=cosine_betas(whole).numpy(), **kinds)


class OfficialHead(nn.Module):
    """The official MAR's head, with noise on the device of ``z``."""

    def __init__(self, channels: int, condition: int, steps: int) -> None:
        super().__init__()
        self.in_channels = channels
        self.net = SimpleMLPAdaLN(channels, 16, condition, 2)
        self.train_diffusion = create_diffusion(1000)
        self.gen_diffusion = create_diffusion(steps)

    def sample(self, z: Tensor, temperature: float = 1.0, cfg: float = 1.0) -> Tensor:
        if cfg != 1.0:
            noise = torch.randn(len(z) // 2, self.in_channels, device=z.device)
            noise, given = torch.cat([noise, noise]), {"c": z, "cfg_scale": cfg}
            network: Callable[..., Tensor] = self.net.forward_with_cfg
        else:
            noise, given = torch.randn(len(z), self.in_channels, device=z.device), {"c": z}
            network = self.net.forward
        return self.gen_diffusion.p_sample_loop(
            network, noise.shape, noise, clip_denoised=False, model_kwargs=given, temperature=temperature
        )
