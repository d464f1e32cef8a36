"""Which draws points share."""

from __future__ import annotations

import torch

from marche_fx.evaluate.draws import batch_draws, drift_draws
from marche_fx.evaluate.settings import Settings

from .tiny import tiny_garments

MODEL = tiny_garments()
SETTINGS = Settings(images=25, batch=10, drift_images=10)


def test_a_batch_has_its_draws_whatever_was_drawn_before() -> None:
    first, again = (batch_draws(MODEL, SETTINGS, 1, 1) for _ in range(2))
    assert all(torch.equal(own, other) for own, other in zip(vars(first).values(), vars(again).values()))


def test_batches_sets_seeds_and_drift_share_no_draws() -> None:
    other = Settings(images=25, batch=10, seed=1)
    draws = [batch_draws(MODEL, SETTINGS, seeds, batch) for seeds in (1, 2) for batch in (0, 1, 2)]
    draws += [batch_draws(MODEL, other, 1, 0), drift_draws(MODEL, SETTINGS, 1), drift_draws(MODEL, SETTINGS, 2)]
    assert len({float(own.noise[0, 0, 0, 0]) for own in draws}) == len(draws)
    assert len({tuple(own.orders[0].tolist()) for own in draws}) == len(draws)


def test_each_class_is_asked_for_equally_often_over_all_batches() -> None:
    labels = [batch_draws(MODEL, SETTINGS, 1, batch).labels for batch in range(SETTINGS.batches)]
    assert [len(own) for own in labels] == [10, 10, 5]
    assert torch.cat(labels).bincount().tolist() == [3] * 5 + [2] * 5


def test_the_orders_are_orders_and_the_noise_is_of_every_token_and_denoising_step() -> None:
    draws = batch_draws(MODEL, SETTINGS, 1, 0)
    assert torch.equal(draws.orders.sort(1).values, torch.arange(16).repeat(10, 1))
    assert draws.noise.shape == (10, 16, 5, 49)
