"""Loops that call a child of the transformed model: it is cached, or the user is told what to write."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import marche_fx
from marche_fx import SelectiveRefresh, UnsupportedModelError
from marche_fx.lazy.tensor import resolved
from tests.api.parents import Nested, Parent, WithCritic, decoded, made, network
from tests.sessions import D, steps


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


def test_what_a_method_calls_that_draws_is_named_as_it_can_be_transformed() -> None:
    class Draws(Parent):
        def predict(self, x: Tensor) -> Tensor:
            return self.net(x) + torch.rand(())

    model = made(Draws)
    torch.manual_seed(3)
    exact = model.by_method(steps())
    with pytest.raises(UnsupportedModelError, match="random numbers"), torch.no_grad():
        marche_fx.transform(model, step="predict", compile=False).predict(steps()[0])
    _, _, told = decoded(model, "by_method")
    assert "model.net = marche_fx.transform(model.net), and decode inside" in told[0]
    model.net = marche_fx.transform(model.net, refresh="exact", compile=False)
    torch.manual_seed(3)
    with marche_fx.decoding(model.net), torch.no_grad():
        found = model.by_method(steps())
    assert all(map(torch.equal, found, exact))


class ByMethods(nn.Module):
    """A network that is called by methods, none of which is its ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(network(1) for _ in range(2))

    def encode(self, x: Tensor) -> Tensor:
        return self.layers[0](x)

    def decode(self, x: Tensor) -> Tensor:
        return self.layers[1](x)


class Around(nn.Module):
    """The object with the loop, which calls methods of its network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ByMethods()

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [resolved(self.net.decode(self.net.encode(x))[:, 8:12]).clone() for x in steps]


@torch.no_grad()
def test_methods_of_a_child_that_run_in_each_step_are_named() -> None:
    model = made(Around)
    _, found, told = decoded(model, "generate")
    assert "model.net = marche_fx.transform(model.net, step=['encode', 'decode']), and decode inside" in told[0]
    exact = model.generate(steps())
    assert all(map(torch.equal, found, exact))
    # As it says.
    model.net = marche_fx.transform(model.net, step=["encode", "decode"], compile=False)
    with marche_fx.decoding(model.net):
        model.generate(steps())
    session = marche_fx.report(model.net).session
    assert session is not None
    assert session.rows_ratio < 0.9


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


class Timed(Parent):
    """A parent whose loop moves a time in every call of its network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = WithTime()

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net(x, torch.full((2,), 1 + 0.3 * at))[:, 8:12].clone() for at, x in enumerate(steps)]


class WithTime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network(2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.body(x + time[:, None, None])


def test_what_is_told_of_an_argument_holds_for_a_child_that_has_it() -> None:
    model = made(Timed)
    for tolerance, is_new_each_time in (({}, True), ({"time": 0.5, "of_another_child": 1.0}, False)):
        optimized = marche_fx.transform(model, loop="generate", tolerance=tolerance, compile=False)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            optimized.generate(steps())
        session = marche_fx.report(optimized).session
        assert session is not None
        assert (session.rows_ratio == 1) is is_new_each_time
