"""What an image is drawn from."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marche_fx.sampling.share import Share, seeded, word

NUMBERS = st.integers(0, 2**40)
CPU = torch.device("cpu")


def share(numbers: range, seed: int = 0) -> Share:
    return Share(numbers, None, seed, CPU)


@given(NUMBERS, st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**31))
def test_an_images_draws_are_those_of_its_number_alone(number: int, size: int, before: int, seed: int) -> None:
    first = max(0, number - before)
    own, among = share(range(number, number + 1), seed), share(range(first, number + size), seed)
    place = number - first
    for drawn in (lambda each: each.randn(3, 2), lambda each: each.rand(4), lambda each: each.randn(1)):
        assert torch.equal(drawn(own)[0], drawn(among)[place]), "also of draws after draws"


def test_other_numbers_and_other_seeds_have_other_draws() -> None:
    drawn = [share(range(100), seed).randn(8) for seed in (0, 1)]
    assert len({tuple(row.tolist()) for row in torch.cat(drawn)}) == 200


def test_draws_go_on() -> None:
    own = share(range(2))
    assert not torch.equal(own.randn(4), own.randn(4))


def test_noise_is_normal_over_images() -> None:
    """Seeds that are near one another are not related."""
    noise = share(range(4000)).randn(2)
    assert noise.mean().abs() < 0.05
    assert (noise.T.cov() - torch.eye(2)).abs().max() < 0.08
    assert abs(float(torch.corrcoef(torch.stack([noise[:-1, 0], noise[1:, 0]]))[0, 1])) < 0.05


@given(st.lists(st.integers(0, 2**64), min_size=1, max_size=4).map(tuple))
def test_a_word_has_64_bits(key: tuple[int, ...]) -> None:
    assert 0 <= word(*key) < 2**64


def drawn_globally() -> tuple[Tensor, float, float]:
    return torch.rand(3), float(np.random.rand()), random.random()


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def test_what_a_loop_draws_from_global_generators_depends_on_the_share_alone() -> None:
    found = []
    for state in (1, 2):
        seed_all(state)
        with seeded(share(range(3))):
            found.append(drawn_globally())
    (a, *others), (b, *same) = found
    assert torch.equal(a, b)
    assert others == same
    with seeded(share(range(3, 6))):
        assert not torch.equal(drawn_globally()[0], a)


def test_global_generators_are_as_they_were() -> None:
    found = []
    for is_between in (False, True):
        seed_all(5)
        if is_between:
            with seeded(share(range(3))):
                drawn_globally()
        found.append(drawn_globally())
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
