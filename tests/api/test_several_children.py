"""Loops that call several children, or one beside the original: each is told apart."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh, StalenessRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.models.text.model import TextDiffusion
from tests.api.parents import Critic, Parent, Remembering, WithCritic, decoded, made, network
from tests.lengths import WORDS
from tests.networks import Transformer
from tests.sessions import D, N, steps


def test_parts_of_a_child_that_is_refused_are_not_taken_for_what_the_loop_calls() -> None:
    model = made(WithCritic)
    model.net = Remembering().eval().requires_grad_(False)
    optimized, found, (message,) = decoded(model, "generate")
    assert "'net' cannot be transformed: Remembering.forward assigns the attribute 'before' (parents.py:" in message
    assert optimized.net is model.net
    assert all(map(torch.equal, found, model.generate(steps())))


def test_a_child_that_is_refused_beside_one_that_is_transformed_is_told_of() -> None:
    model = made(WithCritic)
    model.net = Remembering().eval().requires_grad_(False)
    model.other = network(2).eval().requires_grad_(False)
    optimized, _, (message,) = decoded(model, "both")
    assert "So 'other' is transformed from the second call on" in message
    assert "model.other = marche_fx.transform(model.other). 'net' cannot be transformed: Remembering" in message
    session = marche_fx.report(optimized).session
    assert session is not None
    assert session.rows_ratio < 0.9


@torch.no_grad()
def test_a_loop_that_holds_the_original_is_told_so_and_its_children_stay_what_they_are() -> None:
    model = network(2).eval()
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), compile=False)

    def loop() -> None:
        with marche_fx.decoding(optimized):
            for x in steps():
                model(x)

    with pytest.warns(UserWarning, match="not of the one that marche_fx.transform returned"):
        loop()
    assert all(own is other for own, other in zip(optimized.children(), model.children(), strict=True))
    with marche_fx.decoding(optimized):
        for x in steps():
            resolved(optimized(x)[:, 8:12])
    session = marche_fx.report(optimized).session
    assert session is not None
    assert session.rows_ratio < 0.9


class WithCalledCritic(WithCritic):
    """Whose network the loop calls itself, as it does the critic."""

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net(x)[:, 8:12] + self.critic(x)[:, 8:12] for x in steps]


@torch.no_grad()
def test_a_critic_that_holds_a_transformed_network_is_transformed_as_a_whole() -> None:
    model = made(WithCalledCritic)
    optimized, found, (message,) = decoded(model, "generate", "exact")
    assert "So these are transformed from their second call on" in message
    assert all(map(torch.equal, found, model.generate(steps())))
    assert optimized.critic.net is optimized.net is not model.net
    assert "cannot be transformed" not in message
    assert [own.nodes > 0 for own in marche_fx.report(optimized.critic).steps] == [True]


@torch.no_grad()
def test_a_model_that_was_made_of_a_transformed_one_can_be_transformed() -> None:
    model = made(WithCalledCritic)
    net = marche_fx.transform(model.net, refresh="exact", compile=False)
    critic = marche_fx.transform(Critic(net).eval().requires_grad_(False), refresh="exact", compile=False)
    critic.to_score, x = model.critic.to_score, steps()[0]
    want = model.critic(x)
    captures = []
    for _ in range(3):
        with marche_fx.decoding(critic):
            assert torch.equal(resolved(critic(x)), want)
        captures.append(len(critic.__dict__["_marche_fx"].steps["forward"].programs))
    assert captures == [1, 1, 1]
    net.head.weight.mul_(2)
    with marche_fx.decoding(critic):
        assert torch.equal(resolved(critic(x)), model.critic(x))
    assert critic.net is net


class OneReadAsAWhole(WithCritic):
    """Of which the loop reads nearly every row, and of the critic few."""

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        every = torch.arange(N)
        return [self.net(x)[:, every].mean() + self.critic(x)[:, 8:12].mean() for x in steps]


@torch.no_grad()
def test_of_two_children_each_is_told_of_its_own_calls() -> None:
    optimized: Any = marche_fx.transform(made(OneReadAsAWhole), loop="generate", compile=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimized.generate(steps())
    (message,) = [str(own.message) for own in caught if "hardly anything is gained" in str(own.message)]
    # The first call was the original's.
    assert f"of net.forward were computed in {len(steps()) - 1} calls" in message
    assert f"test_several_children.py:{OneReadAsAWhole.generate.__code__.co_firstlineno + 2}" in message


class TwoTexts(nn.Module):
    """Two networks that differ in their weights alone, each with a text of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (TextDiffusion(WORDS, width=16, depth=2, heads=2, hidden=24) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        return self.first(ids) + self.second(ids)

    def generate(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        return [resolved(net(ids)[:, 8:12]) for pair in pairs for net, ids in zip((self.first, self.second), pair)]


def texts(length: int, seed: int) -> list[Tensor]:
    """Of which a word is replaced in each step."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(WORDS, (2, 32), generator=generator)
    found = []
    for step in range(6):
        ids = ids.clone()
        ids[:, step] = torch.randint(WORDS, (2,), generator=generator)
        found.append(ids[:, :length])
    return found


# Another text of one length, or the same text and more of it.
@pytest.mark.parametrize("second", [(24, 1), (32, 0)])
@torch.no_grad()
def test_two_children_decode_as_each_does_alone(second: tuple[int, int]) -> None:
    model, refresh = made(TwoTexts), StalenessRefresh(0.3, warmup=1)
    sequences = [texts(24, 0), texts(*second)]
    optimized: Any = marche_fx.transform(model, loop="generate", refresh=refresh, compile=False)
    with pytest.warns(UserWarning, match="these are transformed from their second call on"):
        found = optimized.generate(list(zip(*sequences)))
    for number, net in enumerate((model.first, model.second)):
        alone = marche_fx.transform(net, refresh=refresh, compile=False)
        with marche_fx.decoding(alone):
            # The first two calls were the original's: the loop held both children when they were transformed.
            wanted = [resolved(alone(ids)[:, 8:12]).clone() for ids in sequences[number][2:]]
        assert all(map(torch.equal, found[4 + number :: 2], wanted))


class Scheduled(Transformer):
    """A network whose loop calls another child first: a table of noise levels, or an encoder of texts."""

    def __init__(self, first: nn.Module, *, calls: int, again: bool) -> None:
        super().__init__(N, D, 2, depth=2)
        self.first = first
        self.calls, self.again = calls, again

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        found = []
        for number, x in enumerate(steps):
            for _ in range(self.calls if self.again or not number else 0):
                self.first(x[:, :, :1] * 0 + 1)
            found.append(resolved(self(x)[:, 8:12]).clone())
        return found


@pytest.mark.parametrize("again", [True, False])
@torch.no_grad()
def test_a_child_called_before_the_step_stays_what_it_is_and_nobody_is_told_of_a_change(again: bool) -> None:
    torch.manual_seed(0)
    model = Scheduled(nn.Sequential(nn.Linear(1, D), nn.GELU()), calls=2, again=again).eval().requires_grad_(False)
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), loop="generate", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimized.generate(steps())
        captured = list(optimization_of(optimized).steps["forward"].programs)
        optimized.generate(steps())
    assert optimized.first is model.first
    # No change is seen in the second generation, for which the step would be captured again.
    assert all(map(operator.is_, optimization_of(optimized).steps["forward"].programs, captured))
    report = marche_fx.report(optimized)
    assert report.session is not None
    assert report.session.rows_ratio < 1


@torch.no_grad()
def test_a_child_with_attention_called_before_the_step_is_told_of_as_such() -> None:
    torch.manual_seed(0)
    model = Scheduled(Encoder(), calls=4, again=False).eval().requires_grad_(False)
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), loop="generate", compile=False)
    with warnings.catch_warnings(record=True, action="always") as told:
        optimized.generate(steps())
    (message,) = (str(own.message) for own in told)
    assert "the loop called 'first' of Scheduled itself, before forward" in message
    assert "model.first = marche_fx.transform(model.first)" in message


class Encoder(nn.Module):
    """``[B, N, 1] -> [B, N, D]``, with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.body = nn.Linear(1, D), Transformer(N, D, 2, depth=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.entry(x))


def test_a_loop_that_would_be_the_step_too_is_refused_with_the_child_to_transform() -> None:
    with pytest.raises(marche_fx.ArgumentError, match=r"'forward' of Parent is named as its loop.*model.net = marche"):
        marche_fx.transform(Parent().eval(), loop="forward")
