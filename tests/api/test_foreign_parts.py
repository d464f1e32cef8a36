"""Models with parts under torch.jit or torch.compile, or of classes that PyTorch does not take apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx import ArgumentError, UnsupportedModelError
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.graph.source import source_line
from tests.around import MOVED, WIDTH, Around, X, check, optimize, refused


@torch.jit.script
def scripted(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = torch.tanh(x + 0.1)
    return x


@torch.jit.script
def asks(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        x = x * 2
    return x


@torch.compile(backend="eager")
def compiled(x: Tensor) -> Tensor:
    return torch.tanh(x + 0.1)


HELPERS: list[Callable[[Tensor], Tensor]] = [
    lambda x: scripted(x, 2),
    asks,
    compiled,
    torch.compile(lambda x: asks(x) * 2, backend="eager"),
]


@pytest.mark.parametrize("helper", HELPERS)
def test_functions_under_jit_and_compile_are_traced(helper: Callable[[Tensor], Tensor]) -> None:
    check(Around(lambda model, x: model.inner(helper(x))), ((X,), {}), ((MOVED,), {}), ((-X,), {}))


@pytest.mark.parametrize("helper", HELPERS[:1] + HELPERS[2:3])
@torch.no_grad()
def test_their_lines_are_those_of_the_model(helper: Callable[[Tensor], Tensor]) -> None:
    graph = capture(Around(lambda model, x: model.inner(helper(x))), "forward", (X,)).graph_module.graph
    line = Around.forward.__code__.co_firstlineno + 1
    tanh = torch.ops.aten.tanh.default
    assert {source_line(node) for node in graph.nodes if node.target is tanh} == {f"around.py:{line}"}


def test_a_branch_on_values_inside_of_them_is_refused_by_its_line() -> None:
    model = Around(lambda model, x: asks(model.inner(x)))
    refused(model, marche_fx.CaptureError, r"\(test_foreign_parts\.py:\d+, `if bool\(x\.sum\(\) > 0\):`\)", X)


def test_modules_under_jit_are_refused_by_name() -> None:
    model = Around(lambda model, x: model.inner(model.part(x)), part=torch.jit.script(nn.Linear(WIDTH, WIDTH)))
    refused(model, UnsupportedModelError, r"'part' of Around is a torch\.jit\.ScriptModule.*Put the Python module", X)
    with pytest.raises(ArgumentError, match="not the ScriptModule"):
        optimize(torch.jit.script(nn.Linear(WIDTH, WIDTH)))


class Held:
    def __init__(self, x: Tensor) -> None:
        self.x = x


class Registered(Held):
    pass


def of_children(children: Any, context: None) -> Registered:
    return Registered(*children)


@pytest.fixture
def registered() -> Any:
    pytree.register_pytree_node(Registered, lambda own: ([own.x], None), of_children)
    yield
    pytree._deregister_pytree_node(Registered)


def test_instances_of_classes_that_nobody_registered_are_refused_by_name() -> None:
    model = Around(lambda model, x, held=None: Held(model.inner(x)))
    words = r"test_foreign_parts\.Held, .*register_pytree_node"
    refused(model, ArgumentError, f"argument 'held' of forward holds a .*{words}", X, held=Held(X))
    line = Around.forward.__code__.co_firstlineno
    refused(model, UnsupportedModelError, rf"result 0 of Around\.forward \(around\.py:{line}\) is a .*{words}", X)


def test_functions_that_operators_are_given_are_refused_by_the_line() -> None:
    def chosen(model: Any, x: Tensor) -> Tensor:
        found: Tensor = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (model.inner(x),))
        return found

    model = Around(chosen)
    line = chosen.__code__.co_firstlineno + 1
    words = rf"Around.forward calls functions by cond \((test_foreign_parts\.py:{line}|around\.py:\d+)\).*torch.where"
    refused(model, UnsupportedModelError, words, X)


class KeyCache(Held):
    """As dInfer's `KVCache`, of no library's kind."""


def test_a_cache_of_a_class_of_its_own_is_to_be_left_out() -> None:
    model = Around(lambda model, x, held=None: KeyCache(model.inner(x)))
    words = "KeyCache, a cache of the model's own.*use_cache=False"
    refused(model, ArgumentError, f"argument 'held' of forward holds a .*{words}", X, held=KeyCache(X))
    refused(model, UnsupportedModelError, rf"result 0 of Around\.forward .* is a .*{words}", X)


def test_instances_of_registered_classes_are_taken_apart(registered: None) -> None:
    model = Around(lambda model, x, held: Registered(model.inner(x + held.x)))
    check(model, ((X, Registered(X)), {}), ((X, Registered(MOVED)), {}))
