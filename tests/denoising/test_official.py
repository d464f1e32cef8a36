"""The official MAR's diffusion with another denoising."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from marche_fx import ArgumentError, Denoising, UnsupportedModelError
from marche_fx.denoising.solvers import SOLVERS
from marche_fx.denoising.spacing import SPACINGS
from tests.denoising.heads import CHANNELS, CONDITION, bundled_head, calls_of, normal, official_head, replaced
from tests.denoising.official import KIND, SpacedDiffusion, create_diffusion


def sampled(head: Any, *arguments: Any) -> Tensor:
    torch.manual_seed(5)
    found: Tensor = head.sample(*arguments)
    return found


def conditions(rows: int) -> Tensor:
    return normal(rows, CONDITION, dtype=torch.float32)


@given(steps=st.integers(2, 40), cfg=st.sampled_from([1.0, 3.0]), temperature=st.sampled_from([1.0, 0.8]))
def test_as_many_even_steps_as_the_model_has_change_no_bit(steps: int, cfg: float, temperature: float) -> None:
    head, z = official_head(steps), conditions(4)
    expected = sampled(head, z, temperature, cfg)
    for asked in (Denoising(), Denoising(steps), Denoising(guidance=(0, 1))):
        assert torch.equal(sampled(replaced(head, asked), z, temperature, cfg), expected)


@given(steps=st.integers(2, 40), spacing=st.sampled_from(list(SPACINGS)), last=st.integers(60, 999))
def test_other_steps_are_those_of_a_diffusion_made_for_them(steps: int, spacing: str, last: int) -> None:
    head, z, asked = official_head(7), conditions(4), Denoising(steps, spacing, clip=last)
    own = replaced(head, asked)
    made = official_head(7)
    kinds = {"model_mean_type": KIND, "model_var_type": "learned_range", "loss_type": "mse"}
    kept: Any = own.gen_diffusion
    # From betas that were not summed up and divided again: the last bits of float64.
    made.gen_diffusion = SpacedDiffusion(kept.schedule.timesteps(steps), betas=create_diffusion(1000).betas, **kinds)
    assert kept.num_timesteps == made.gen_diffusion.num_timesteps == steps
    torch.testing.assert_close(sampled(own, z, 0.8, 3.0), sampled(made, z, 0.8, 3.0), rtol=1e-5, atol=1e-5)


@given(steps=st.integers(2, 12), solver=st.sampled_from(list(SOLVERS)), cfg=st.sampled_from([1.0, 2.5]))
@torch.no_grad()
def test_a_solver_gives_what_it_gives_the_bundled_head(steps: int, solver: str, cfg: float) -> None:
    official, bundled, z = official_head(8), bundled_head(8, limit=None).float(), conditions(4)
    asked = Denoising(steps, solver=solver)
    torch.manual_seed(5)
    noise = torch.randn(4 if cfg == 1 else 2, CHANNELS)
    expected = replaced(bundled, asked).sample(z, 1.0, cfg, noise=noise.repeat(12, 1, 1))
    found = sampled(replaced(official, asked), z, 1.0, cfg)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_outside_of_its_interval_guidance_is_not_computed() -> None:
    head, z = official_head(5), conditions(6)
    own = replaced(head, Denoising(guidance=(0.2, 0.6)))
    assert calls_of(head, lambda: own.sample(z, cfg=3.0)) == [(999, 3), (749, 3), (500, 6), (250, 6), (0, 3)]
    assert calls_of(head, lambda: own.sample(z)) == [(t, 6) for t in (999, 749, 500, 250, 0)]


def test_guidance_outside_of_its_interval_is_a_scale_of_one() -> None:
    head, z = official_head(9), conditions(6)
    never = replaced(head, Denoising(guidance=(0, 0.0005)))
    expected = sampled(replaced(head, Denoising()), z, 1.0, 1.0 + 1e-7)
    torch.testing.assert_close(sampled(never, z, 1.0, 3.0)[:3], expected[:3], rtol=1e-4, atol=1e-4)


def test_a_network_that_cannot_be_called_without_guidance_is_refused() -> None:
    head = official_head(5)
    sampler: Any = replaced(head, Denoising(guidance=(0.2, 0.6))).gen_diffusion
    given = {"c": conditions(4), "cfg_scale": 3.0}
    with pytest.raises(ArgumentError, match="forward_with_cfg"):
        sampler.p_sample_loop(
            lambda *own, **others: head.net.forward_with_cfg(*own, **others), (4, 4), model_kwargs=given
        )


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_a_solver_refuses_a_temperature_and_a_gradient(solver: str) -> None:
    own = replaced(official_head(5), Denoising(solver=solver))
    with pytest.raises(ArgumentError, match=r"adds no noise.*temperature=0.8"):
        own.sample(conditions(4), 0.8)
    sampler: Any = own.gen_diffusion
    with pytest.raises(ArgumentError, match="cond_fn"):
        sampler.p_sample_loop(own.net.forward, (4, 4), cond_fn=lambda x, t: x, model_kwargs={"c": conditions(4)})


def test_a_gradient_reaches_the_ancestral_steps() -> None:
    own = replaced(official_head(5), Denoising(3))
    sampler: Any = own.gen_diffusion

    def drawn(cond_fn: Any) -> Tensor:
        torch.manual_seed(0)
        found: Tensor = sampler.p_sample_loop(
            own.net.forward, (4, 4), cond_fn=cond_fn, model_kwargs={"c": conditions(4)}
        )
        return found

    assert not torch.equal(drawn(None), drawn(lambda x, t: x + 1))


class Foreign:
    """A diffusion of nobody here."""


@pytest.mark.parametrize(
    ("own", "whole"),
    [(Foreign(), Foreign()), (None, None), (create_diffusion(5), None), (create_diffusion(5), create_diffusion(50))],
)
def test_a_diffusion_that_is_not_known_is_refused_by_name(own: Any, whole: Any) -> None:
    head: Any = nn.Linear(2, 2)
    head.gen_diffusion, head.train_diffusion = own, whole
    with pytest.raises(
        UnsupportedModelError, match="the diffusion of Linear is not known: denoising needs a head with"
    ):
        replaced(head, Denoising(3))
