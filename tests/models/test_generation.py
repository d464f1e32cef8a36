"""Generations on draws made beforehand."""

from __future__ import annotations

import pytest
import torch

import marche_fx
from marche_fx.models.generation import Draws, Sampling, draw, generate, timed
from tests.evaluate.tiny import tiny_garments

MODEL = tiny_garments()
LABELS = torch.tensor([3, 1, 4])


def drawn(seed: int = 0) -> Draws:
    return draw(MODEL, LABELS, torch.Generator().manual_seed(seed))


def test_draws_are_those_of_the_generator_for_the_labels() -> None:
    draws = drawn()
    assert torch.equal(draws.labels, LABELS)
    assert torch.equal(draws.orders.sort(1).values, torch.arange(16).repeat(3, 1))
    assert draws.noise.shape == (3, 16, 5, 49)
    assert all(torch.equal(own, again) for own, again in zip(vars(draws).values(), vars(drawn()).values()))
    assert not torch.equal(draws.noise, drawn(1).noise)
    # The orders are the model's own for this generator.
    assert torch.equal(draws.orders, MODEL.sample_orders(3, torch.Generator().manual_seed(0)))


def test_an_image_does_not_depend_on_what_shares_its_batch_or_on_the_global_seed() -> None:
    sampling = Sampling(4, 2.0, 0.8)
    all_images, first = (generate(MODEL, own, sampling, progress=False).images for own in (drawn(), drawn().first(1)))
    torch.testing.assert_close(all_images[:1], first, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("refresh", [None, marche_fx.FullRefresh()])
def test_a_generation_says_where_its_seconds_went_and_what_was_computed(
    refresh: marche_fx.RefreshPolicy | None,
) -> None:
    model = MODEL if refresh is None else marche_fx.transform(MODEL, refresh=refresh, compile=False)
    found = generate(model, drawn(), Sampling(4, 1.0, 0.8), progress=False)
    assert found.images.shape == (3, 1, 28, 28)
    assert found.images.abs().max() <= 1
    assert 0 < found.head_seconds < found.seconds
    assert (found.session is None) == (refresh is None)
    assert found.session is None or found.session.rows_ratio == 1


def test_timed_counts_the_calls_of_a_method_and_gives_it_back() -> None:
    module = torch.nn.Linear(2, 2)
    with timed(module, "forward") as seconds:
        module(torch.ones(2))
        module(torch.ones(2))
    assert len(seconds) == 2
    assert "forward" not in vars(module)
