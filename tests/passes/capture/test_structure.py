"""What a capture bakes in of a model beside its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from marche_fx.passes.capture.structure import assignment_line, attributes, changed_attributes, structure


class Config:
    def __init__(self) -> None:
        self.width = 4
        self.names = ["a"]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4))
        self.config = Config()
        self.tables: dict[str, Any] = {"a": torch.ones(2)}
        self.count = 1000

    def forward(self) -> None:
        self.count += 1
        if self.count == 3:
            self.tables["a"] = torch.zeros(2)


class Keeping(nn.Module):
    """Keeps keys and values of a call for the next, both in one line."""

    k: Any = None
    v: Any = None

    def forward(self, k: Any, v: Any) -> Any:
        if self.k is None:
            return {"k": self.k}
        self.k, self.v = k, v
        return None


CHANGES: dict[str, Callable[[Layer], Any]] = {
    "linear._forward_hooks": lambda layer: layer.linear.register_forward_hook(lambda *_: None),
    "linear.out_features": lambda layer: setattr(layer.linear, "out_features", 5),
    "linear.bias": lambda layer: setattr(layer.linear, "bias", None),
    "_modules": lambda layer: setattr(layer, "other", nn.Identity()),
    "config": lambda layer: layer.config.names.append("b"),
    "tables": lambda layer: layer.tables.update(a=torch.ones(2)),
    "count": lambda layer: setattr(layer, "count", 1001),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named(name: str) -> None:
    layer = Layer()
    before = structure(layer)
    CHANGES[name](layer)
    assert name in [".".join(place).removeprefix(".") for place in changed_attributes(before, structure(layer))]


def test_values_of_weights_and_equal_numbers_are_no_change_of_structure() -> None:
    layer = Layer()
    before, exact = structure(layer), attributes(layer)
    layer.linear.weight = nn.Parameter(torch.zeros(4, 4))
    layer.double()
    layer.count = int("1000")
    layer.config.width = int("4")
    assert not changed_attributes(before, structure(layer))
    assert ("linear", "weight") in changed_attributes(exact, attributes(layer))


def test_untied_weights_are_a_change_of_structure() -> None:
    layer = Layer()
    layer.other = nn.Linear(4, 4)
    layer.other.weight = layer.linear.weight
    before = structure(layer)
    layer.other.weight = nn.Parameter(layer.linear.weight.clone())
    assert ("other", "weight") in changed_attributes(before, structure(layer))


def test_an_assignment_is_found_in_the_source() -> None:
    first = Layer.forward.__code__.co_firstlineno
    assert assignment_line(Layer(), "count") == f"test_structure.py:{first + 1}"
    assert assignment_line(Layer(), "tables") == f"test_structure.py:{first + 3}"
    assert assignment_line(Layer(), "config") == "", "the constructor does not count"


@pytest.mark.parametrize("name", ["k", "v"])
def test_an_assignment_of_several_at_once_is_found_in_the_source(name: str) -> None:
    line = Keeping.forward.__code__.co_firstlineno + 3
    assert assignment_line(Keeping(), name) == f"test_structure.py:{line}"
