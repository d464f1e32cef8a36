"""Loops that call a child of the transformed model: it is cached, or the user is told what to write."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import marche_fx
from marche_fx import SelectiveRefresh, StalenessRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.models.text.model import TextDiffusion
from tests.lengths import WORDS
from tests.networks import Transformer
from tests.sessions import D, N, steps


class Table(nn.Module):
    """An embedding of a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(3, D))

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows[ids]


def network(depth: int) -> nn.Module:
    found = Transformer(N, D, 2, depth=depth)
    found.head = nn.Linear(D, D)
    found.embedding = nn.Embedding(3, D)
    found.table = Table()
    return found


class Parent(nn.Module):
    """The object with the loop, whose network is a child, beside one without attention."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.net = inner or network(2)
        self.head = nn.Linear(D, D)
        self.layers = nn.ModuleList(network(1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).square().mean()

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [resolved(self.net(x)[:, 8:12]).clone() for x in steps]

    def with_head(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.head(self.net(x)[:, 8:12]) for x in steps]

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def by_method(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.predict(x)[:, 8:12] for x in steps]

    def by_layer(self, steps: list[Tensor]) -> list[Tensor]:
        found = []
        for x in steps:
            for layer in self.layers:
                x = layer(x)
            found.append(x)
        return found

    def with_embedding(self, steps: list[Tensor]) -> list[Tensor]:
        # As of a prompt and of a mask, before the loop and in it.
        embedding = self.net.get_submodule("embedding")
        first = embedding(torch.tensor([0])) + embedding(torch.tensor([1]))
        return [resolved((self.net(x)[:, 8:12] + first + embedding(torch.tensor([2]))) * 1).clone() for x in steps]

    def with_table(self, steps: list[Tensor]) -> list[Tensor]:
        table = self.net.get_submodule("table")
        first = table(torch.tensor([0])) + table(torch.tensor([1])) + table(torch.tensor([2]))
        return [resolved((self.net(x)[:, 8:12] + first + table(torch.tensor([2]))) * 1).clone() for x in steps]

    def head_alone(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.head(x) for x in steps]


class Guided(Transformer):
    """Calls its own ``forward``, which no hook of PyTorch sees."""

    def guided(self, x: Tensor) -> Tensor:
        return 2 * self.forward(x) - self.forward(x)


class Remembering(Guided):
    """Guided by calls of its ``forward`` that set an attribute, which no step may."""

    before: Tensor

    def __init__(self) -> None:
        super().__init__(N, D, 2, depth=2)
        self.head = nn.Linear(D, D)
        self.register_buffer("before", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        shift = 0 * self.before
        self.register_buffer("before", x.mean(), persistent=False)
        return super().forward(x + shift, *mask)


class Critic(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.to_score = nn.Linear(D, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_score(self.net(x))


class WithCritic(nn.Module):
    """A network that the loop calls by a method, and a critic that has the same one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Guided(N, D, 2, depth=2)
        self.net.head = nn.Linear(D, D)
        self.critic = Critic(self.net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).square().mean()

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net.guided(x)[:, 8:12] + 0 for x in steps]

    def both(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net.guided(x)[:, 8:12] + self.get_submodule("other")(x)[:, 8:12] for x in steps]

    def held(self, steps: list[Tensor]) -> list[Tensor]:
        decode = self.net.guided
        return [decode(x)[:, 8:12] + 0 for x in steps]

    def criticised(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net.guided(x)[:, 8:12] + self.critic(x)[:, 8:12] for x in steps]


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Parent()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.model.net(x)[:, 8:12] + 0 for x in steps]


def made(kind: type[nn.Module] = Parent) -> Any:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


def decoded(model: nn.Module, loop: str, refresh: Any = None) -> tuple[Any, list[Tensor], list[str]]:
    """The transformed model, what its loop gives, and what the user is told."""
    optimized = marche_fx.transform(model, loop=loop, refresh=refresh or SelectiveRefresh(0.1, warmup=1), compile=False)
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        found = getattr(optimized, loop)(steps())
    assert not torch_module._global_forward_pre_hooks
    assert not torch_module._global_forward_hooks
    told = [str(own.message) for own in caught if "never called" in str(own.message)]
    return optimized, found, told


@pytest.mark.parametrize("loop", ["generate", "with_head"])
def test_a_child_that_the_loop_calls_is_transformed_and_the_user_told(loop: str) -> None:
    model = made()
    optimized, found, told = decoded(model, loop)
    assert len(told) == 1
    assert "model.net = marche_fx.transform(model.net)" in told[0]
    report = marche_fx.report(optimized)
    assert report.session is not None
    assert report.session.rows_ratio < 0.9
    assert len(report.steps) == 1
    exact = getattr(model, loop)(steps())
    assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(found[:2], exact))
    _, exactly, _ = decoded(made(), loop, "exact")
    assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(exactly, exact, strict=True))


def test_the_original_keeps_its_child() -> None:
    model = made()
    child, children = model.net, model._modules
    optimized, _, _ = decoded(model, "generate")
    assert model.net is child
    assert model._modules is children
    assert optimized.net is not child
    assert list(optimized.state_dict()) == list(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimized.generate(steps())
    assert marche_fx.report(optimized).session is not None


def test_a_child_of_a_child_is_found() -> None:
    model = made(Nested)
    inner = model.model
    optimized, found, told = decoded(model, "generate")
    assert "model.model.net = marche_fx.transform(model.model.net)" in told[0]
    assert model.model is inner
    assert marche_fx.report(optimized).session is not None
    assert all(own.shape == (2, 4, D) for own in found)


def test_a_method_that_runs_in_each_step_is_named() -> None:
    model = made()
    _, found, told = decoded(model, "by_method")
    assert "step='predict'" in told[0]
    assert all(map(torch.equal, found, model.by_method(steps())))


def test_layers_called_one_by_one_are_told_of() -> None:
    model = made()
    _, found, told = decoded(model, "by_layer")
    assert "'layers.0', 'layers.1'" in told[0]
    assert "Put what is called in each step into one method" in told[0]
    assert all(map(torch.equal, found, model.by_layer(steps())))


def test_of_many_layers_that_are_called_one_by_one_a_few_are_named() -> None:
    model = made()
    model.layers = nn.ModuleList(network(1) for _ in range(12))
    _, _, told = decoded(model, "by_layer")
    assert "'layers.0', 'layers.1', 'layers.2', 'layers.3' and 8 more" in told[0]
    assert "layers.4" not in told[0]


def test_an_embedding_that_is_called_first_is_not_taken_for_the_network() -> None:
    model = made()
    optimized, found, told = decoded(model, "with_embedding")
    assert "model.net = marche_fx.transform(model.net)" in told[0]
    assert "embedding" not in told[0]
    assert marche_fx.report(optimized).session is not None
    assert all(own.shape == (2, 4, D) for own in found)


def test_after_a_child_that_cannot_be_transformed_the_network_is_found() -> None:
    model = made()
    optimized, found, told = decoded(model, "with_table")
    (message,) = told
    assert "model.net = marche_fx.transform(model.net)" in message
    assert "model.net.table" not in message
    session = marche_fx.report(optimized).session
    assert session is not None
    assert session.rows_ratio < 1
    assert all(own.shape == (2, 4, D) for own in found)


def test_with_gradients_a_child_is_refused_and_nobody_goes_on_watching() -> None:
    torch.manual_seed(0)
    model = Parent().eval()
    optimized = marche_fx.transform(model, loop="generate", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optimized.generate(steps())
    assert not torch_module._global_forward_pre_hooks
    assert not torch_module._global_forward_hooks
    assert all(map(torch.equal, found, model.generate(steps())))


@torch.no_grad()
def test_a_layer_of_the_step_that_the_loop_calls_too_stays_what_it_is() -> None:
    optimized = marche_fx.transform(network(2).eval(), refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    layer = optimized.get_submodule("embedding")
    with warnings.catch_warnings(), marche_fx.decoding(optimized):
        warnings.simplefilter("error")
        for number in (0, 1):
            optimized.get_submodule("embedding")(torch.tensor([number]))
        for x in steps():
            resolved(optimized(x)[:, 8:12])
    assert optimized.get_submodule("embedding") is layer


def test_a_child_without_attention_stays_what_it_is() -> None:
    model = made()
    _, found, told = decoded(model, "head_alone")
    assert "'head' cannot be transformed: found no attention" in told[0]
    assert all(map(torch.equal, found, model.head_alone(steps())))


@torch.no_grad()
def test_sessions_of_ones_own_are_watched_too() -> None:
    optimized = marche_fx.transform(made(), refresh=SelectiveRefresh(0.1, warmup=1), compile=False)

    def loop() -> None:
        with marche_fx.decoding(optimized):
            for x in steps():
                resolved(optimized.net(x)[:, 8:12])

    with pytest.warns(UserWarning, match=r"never called forward of Parent"):
        loop()
    report = marche_fx.report(optimized)
    assert report.session is not None
    assert report.session.rows_ratio < 0.9


@torch.no_grad()
def test_a_child_called_by_a_helper_of_the_loop_is_transformed() -> None:
    optimized = marche_fx.transform(made(), refresh=SelectiveRefresh(0.1, warmup=1), compile=False)

    def predict(x: Tensor) -> Tensor:
        return optimized.net(x)

    def loop() -> None:
        with marche_fx.decoding(optimized):
            for x in steps():
                resolved(predict(x)[:, 8:12])

    with pytest.warns(UserWarning, match=r"model\.net = marche_fx\.transform\(model\.net\)"):
        loop()
    report = marche_fx.report(optimized)
    assert report.session is not None
    assert report.session.rows_ratio < 0.9


@torch.no_grad()
def test_a_session_in_which_nothing_is_called_says_nothing() -> None:
    optimized = marche_fx.transform(made(), compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with marche_fx.decoding(optimized):
            pass
        with marche_fx.decoding(optimized):
            optimized(steps()[0])


@torch.no_grad()
def test_children_called_by_compiled_code_are_counted_without_a_word_of_the_compiler() -> None:
    model = made()
    optimized = marche_fx.transform(model, compile=False)
    compiled = torch.compile(model.predict, backend="eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with marche_fx.decoding(optimized):
            for x in steps():
                compiled(x)
    told = [str(own.message) for own in caught if issubclass(own.category, UserWarning)]
    assert all("never called forward of Parent" in own for own in told), told
    assert len(told) == 1


def test_a_child_whose_forward_is_called_by_its_own_method_is_transformed() -> None:
    optimized, found, (message,) = decoded(made(WithCritic), "generate")
    assert message.endswith("model.net = marche_fx.transform(model.net)")
    report = marche_fx.report(optimized)
    assert report.session is not None
    assert report.session.rows_ratio < 0.9
    exact = made(WithCritic).generate(steps())
    assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(found[:2], exact))


@torch.no_grad()
def test_a_loop_that_held_a_child_before_is_told_that_the_next_generation_caches() -> None:
    optimized, _, (message,) = decoded(made(WithCritic), "held")
    assert "nothing was cached in this generation; the next ones use it" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimized.held(steps())
    session = marche_fx.report(optimized).session
    assert session is not None
    assert session.rows_ratio < 0.9


def test_a_child_in_two_places_is_transformed_in_both() -> None:
    model = made(WithCritic)
    optimized, _, _ = decoded(model, "criticised")
    assert optimized.critic.net is optimized.net is not model.net
    assert model.critic.net is model.net
    session = marche_fx.report(optimized).session
    assert session is not None
    ((_, calls, *_),) = session.rows
    # Three in each step, but for those from which it was known which child it is.
    assert calls >= 3 * (len(steps()) - 1)


def test_parts_of_a_child_that_is_refused_are_not_taken_for_what_the_loop_calls() -> None:
    model = made(WithCritic)
    model.net = Remembering().eval().requires_grad_(False)
    optimized, found, (message,) = decoded(model, "generate")
    assert "'net' cannot be transformed: Remembering.forward assigns the attribute 'before' (test_child" in message
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
    assert f"test_children.py:{OneReadAsAWhole.generate.__code__.co_firstlineno + 2}" in message


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
