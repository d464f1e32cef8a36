"""Rivals' samplers in a whole generation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from marche_fx import ArgumentError, FullRefresh, report, transform
from marche_fx.api.optimization import optimization_of
from marche_fx.models import MAR
from marche_fx.models.generation import Draws, Sampling, draw, sample
from marche_fx.models.head import DiffLoss
from marche_fx.rivals import REFRESH, RIVALS, with_sampler
from marche_fx.rivals.stepped import counted_steps, draw_by
from tests.evaluate.tiny import tiny_garments

STEPS = 8
SAMPLING = Sampling(STEPS, 2.0, 1.0)


@pytest.fixture(scope="module")
def mar() -> MAR:
    return tiny_garments(num_sampling_steps=50)


@pytest.fixture(scope="module")
def draws(mar: MAR) -> Draws:
    return draw(mar, torch.arange(3), torch.Generator().manual_seed(0))


def one_step_at_a_time(mar: MAR, draws: Draws, rival: str, *, of: int) -> Tensor:
    """The same, slowly: by a loop whose head is another model's in each call."""
    at, calls = RIVALS[rival](mar.diffloss.gen_diffusion), iter(range(of))

    class Changing(DiffLoss):
        def sample(self, *args: object, **kwargs: object) -> Tensor:
            drawn: Tensor = with_sampler(mar.diffloss, at(next(calls), of)).sample(*args, **kwargs)  # type: ignore[arg-type]
            return drawn

    own = copy.deepcopy(mar)
    own.diffloss.__class__ = Changing
    with torch.inference_mode():
        found = sample(own, draws, SAMPLING)
    assert next(calls, None) is None
    return found


@pytest.mark.parametrize("rival", ["disa", "recap", "lazymar"])
def test_each_decoding_step_draws_by_its_own_sampler(mar: MAR, draws: Draws, rival: str) -> None:
    own = copy.copy(mar)
    draw_by(own, RIVALS[rival](mar.diffloss.gen_diffusion), STEPS)
    with torch.inference_mode():
        for _ in range(2):
            with counted_steps():
                found = sample(own, draws, SAMPLING)
            torch.testing.assert_close(found, one_step_at_a_time(mar, draws, rival, of=STEPS))
        exact = sample(mar, draws, SAMPLING)
    assert "diffloss" not in vars(mar)
    assert not torch.allclose(found, exact, atol=1e-3), "the original draws by its own"


def test_a_transformed_model_is_captured_once_whatever_step_it_is_in(mar: MAR, draws: Draws) -> None:
    own = transform(mar, refresh=REFRESH["recap"](STEPS), compile=False)
    draw_by(own, RIVALS["recap"](mar.diffloss.gen_diffusion), STEPS)
    with torch.inference_mode():
        for _ in range(2):
            with counted_steps():
                sample(own, draws, SAMPLING)
    found = report(own)
    assert [len(step.programs) for step in optimization_of(own).steps.values()] == [1, 1]
    assert found.session is not None
    assert found.session.flops_ratio < 0.95


def test_a_rival_that_caches_nothing_is_its_own_slow_loop(mar: MAR, draws: Draws) -> None:
    own = transform(mar, refresh=FullRefresh(), compile=False)
    draw_by(own, RIVALS["lazymar"](mar.diffloss.gen_diffusion), STEPS)
    with torch.inference_mode(), counted_steps():
        found = sample(own, draws, SAMPLING)
    # An untrained head makes much of what rounding differs by on some processors.
    torch.testing.assert_close(found, one_step_at_a_time(mar, draws, "lazymar", of=STEPS), rtol=1e-2, atol=1e-2)


def test_a_head_called_outside_of_its_steps_is_refused(mar: MAR, draws: Draws) -> None:
    own = copy.copy(mar)
    draw_by(own, RIVALS["disa"](mar.diffloss.gen_diffusion), STEPS)
    with torch.inference_mode():
        with pytest.raises(ArgumentError, match="each of 8 decoding steps was called outside of them"):
            sample(own, draws, SAMPLING)
        with counted_steps(), pytest.raises(ArgumentError, match="decode in as many steps"):
            sample(own, draws, Sampling(STEPS + 1, 2.0, 1.0))


def test_a_rival_that_draws_more_often_than_there_is_noise_is_refused() -> None:
    own = tiny_garments(num_sampling_steps=20)
    draws = draw(own, torch.arange(2), torch.Generator().manual_seed(0))
    draw_by(own, RIVALS["disa"](own.diffloss.gen_diffusion), STEPS)
    with torch.inference_mode(), counted_steps(), pytest.raises(ArgumentError, match="draws each token 48 times"):
        sample(own, draws, SAMPLING)
