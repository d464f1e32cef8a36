"""In place of the sampling diffusion of the official MAR: `SpacedDiffusion` of guided-diffusion, with a temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from ..errors import ArgumentError
from .schedule import Announce, Kept, Progress, Schedule, ignore
from .settings import Denoising
from .solvers import SOLVERS

Network = Callable[..., Tensor]
"""``(x [R, C], t [R], **model_kwargs) -> [R, 2C]``."""

USED = ("timestep_map", "original_num_steps", "alphas_cumprod", "p_sample", "p_mean_variance", "p_sample_loop")
"""Names by which such a diffusion is known."""

KINDS = ("model_mean_type", "model_var_type", "loss_type", "rescale_timesteps")
"""Arguments of its making that say what the network predicts."""


class OfficialSampler:
    """Denoises as a `Denoising` says, by the ``p_sample_loop`` that the head calls of its own diffusion.

    Args:
        whole: the diffusion that the head is trained with, of all timesteps. own: the one that it samples with.
    """

    def __init__(
        self, denoising: Denoising, whole: Any, own: Any, progress: Progress, announce: Announce = ignore
    ) -> None:
        kinds = {name: getattr(own, name) for name in KINDS if hasattr(own, name)}

        def respaced(timesteps: tuple[int, ...]) -> Any:
            return type(own)(use_timesteps=timesteps, betas=whole.betas, **kinds)

        signal = torch.as_tensor(whole.alphas_cumprod, dtype=torch.float64)
        self.schedule = Schedule(denoising, signal, Kept(own, tuple(own.timestep_map)), respaced, progress, announce)

    @property
    def num_timesteps(self) -> int:
        return self.schedule.most_steps

    @torch.no_grad()
    def p_sample_loop(
        self,
        model: Network,
        shape: tuple[int, ...],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        denoised_fn: Callable[[Tensor], Tensor] | None = None,
        cond_fn: Callable[..., Tensor] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        """A sample of ``shape`` ``[R, C]``; arguments as those of the official method."""
        kept = self.schedule.of_this_call(temperature)
        diffusion, timesteps, asked = kept.diffusion, kept.timesteps, self.schedule.denoising
        given = dict(model_kwargs or {})
        device = device or next((own.device for own in given.values() if isinstance(own, Tensor)), None)
        current = torch.randn(*shape, device=device) if noise is None else noise

        def arguments(x: Tensor, index: int) -> dict[str, Any]:
            is_guided = asked.is_guided_at(timesteps[index], self.schedule.length)
            return {
                "model": model if is_guided else without_guidance(model, given),
                "x": x,
                "t": torch.full((len(x),), index, device=x.device),
                "clip_denoised": clip_denoised,
                "denoised_fn": denoised_fn,
                "model_kwargs": given,
            }

        if asked.solver in SOLVERS:
            if cond_fn is not None:
                raise ArgumentError(f"cond_fn guides each noisy step, and the solver {asked.solver!r} takes none")

            def predict_start(x: Tensor, index: int) -> Tensor:
                start: Tensor = diffusion.p_mean_variance(**arguments(x, index))["pred_xstart"]
                return start

            return SOLVERS[asked.solver](predict_start, self.schedule.signal_at(timesteps), current)
        for index in track(range(len(timesteps) - 1, -1, -1), "denoising", disable=not progress):
            current = diffusion.p_sample(**arguments(current, index), cond_fn=cond_fn, temperature=temperature)[
                "sample"
            ]
        return current


def without_guidance(model: Network, given: Mapping[str, Any]) -> Network:
    """The conditional half for both halves, where ``model`` is a ``forward_with_cfg``; ``model`` itself otherwise.

    Raises:
        ArgumentError: it has guidance and is no method of a network, which could be called without.
    """
    if "cfg_scale" not in given:
        return model
    network: Any = getattr(model, "__self__", None)
    if not callable(getattr(network, "forward", None)):
        raise ArgumentError(
            "guidance in a part of the schedule needs a head that samples by network.forward_with_cfg, so that "
            f"network.forward can be called without guidance; it samples by {model!r}"
        )

    def conditional(x: Tensor, t: Tensor, c: Tensor, cfg_scale: float) -> Tensor:
        half = len(x) // 2
        output: Tensor = network.forward(x[:half], t[:half], c[:half])
        return torch.cat([output, output])

    return conditional


def is_known(diffusion: object) -> bool:
    return all(hasattr(diffusion, name) for name in USED)
