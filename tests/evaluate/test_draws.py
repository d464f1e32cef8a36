"""Which draws points share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from marche_fx import ArgumentError
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


def test_the_draws_of_a_seed_are_those_of_evaluations_made_before() -> None:
    """A folder goes on with the draws that it was begun with, so these values never change within a version."""
    batch, drift = batch_draws(MODEL, SETTINGS, 2, 1), drift_draws(MODEL, SETTINGS, 1)
    assert batch.orders[3].tolist() == [1, 12, 6, 7, 8, 5, 11, 3, 2, 4, 14, 15, 10, 13, 9, 0]
    assert batch.noise[3, 5, 2, :3].tolist() == pytest.approx([0.619431, 1.446737, 1.183545], abs=1e-5)
    assert drift.orders[3].tolist() == [9, 2, 1, 14, 12, 15, 4, 13, 8, 0, 3, 7, 10, 6, 5, 11]
    assert drift.noise[3, 5, 2, :3].tolist() == pytest.approx([0.262411, 1.149278, 0.230741], abs=1e-5)


@pytest.mark.parametrize("order", ["raster", "halton", "checkerboard"])
def test_in_another_order_noise_and_labels_are_the_same(order: str) -> None:
    asked = replace(SETTINGS, order=order)
    for seeds in (1, 2):
        own, usual = (batch_draws(MODEL, settings, seeds, 1) for settings in (asked, SETTINGS))
        assert torch.equal(own.noise, usual.noise)
        assert torch.equal(own.labels, usual.labels)
        assert not torch.equal(own.orders, usual.orders)
    # MAR decodes the last one first.
    first = drift_draws(MODEL, replace(SETTINGS, order="raster"), 1).orders[:, -1]
    assert first.tolist() == [0] * 10


def test_an_order_that_there_is_not_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no order 'spiral'"):
        Settings(order="spiral")
