"""Whatever a step reads beside its arguments and weights may change between sessions, and the next one sees it."""

from __future__ import annotations

import functools
from array import array
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import marche_fx
from tests.around import MOVED, WIDTH, X, captures, decodes_with_one_capture, optimize, same, transformer


def times(x: Tensor, scale: float = 1.0) -> Tensor:
    return x * scale


def times_keyword(x: Tensor, *, scale: float = 1.0) -> Tensor:
    return x * scale


def times_enclosed() -> tuple[Callable[[Tensor], Tensor], Callable[[float], None]]:
    scale = 1.0

    def scaled(x: Tensor) -> Tensor:
        return x * scale

    def change(value: float) -> None:
        nonlocal scale
        scale = value

    return scaled, change


class Slots:
    __slots__ = ("scale",)
    scale: float


class Entries(dict[str, float]):
    pass


@dataclass
class Settings:
    scale: float = 1.0
    rows: Any = field(default_factory=lambda: np.ones(WIDTH, dtype=np.float32))


class Kind(type):
    scale = 1.0


class OfKind(metaclass=Kind):
    pass


class Processor:
    """As those that attention layers call."""

    shift = 0.0

    def __init__(self) -> None:
        self.factor = 1.0
        self.inner = Slots()
        self.inner.scale = 1.0

    @property
    def scale(self) -> float:
        return self.factor

    def __call__(self, model: Any, x: Tensor) -> Tensor:
        return x * self.factor + self.shift


class Own:
    number = 1.0


NUMBER = 1.0
TABLE = {"scale": 1.0}
ARRAY = np.ones(WIDTH, dtype=np.float32)


def from_globals(x: Tensor) -> Tensor:
    return x * NUMBER * TABLE["scale"] * torch.from_numpy(ARRAY.copy())


class Hidden(nn.Module):
    factor = 1.0
    table: ClassVar[dict[str, float]] = {"scale": 1.0}

    def __init__(self, read: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.read = transformer(), read
        self.processor = Processor()
        self.bound = self.processor.__call__
        self.settings, self.entries, self.mapping = Settings(), Entries(scale=1.0), UserDict(scale=1.0)
        self.space = SimpleNamespace(rows=[Slots()])
        self.space.rows[0].scale = 1.0
        self.entries.extra = 1.0  # type: ignore[attr-defined]
        self.partial = functools.partial(times, scale=1.0)
        self.scaled, self.rescale = times_enclosed()
        self.function = lambda x, scale=1.0: x * scale
        self.python = ModuleType("settings_of_a_test")
        self.python.scale = 1.0  # type: ignore[attr-defined]
        self.kind, self.array, self.bytes = Own, array("f", [1.0]), bytearray(b"\1")
        self.pair = (1.0, {"scale": 1.0})
        self.held = {"scale": torch.ones(())}
        self.loose: Any = [nn.Linear(WIDTH, WIDTH)]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.read(self, x))


Read = Callable[[Any, Tensor], Tensor]
Change = Callable[[Any], Any]

STATE: dict[str, tuple[Read, Change]] = {
    "a callable's attribute": (lambda m, x: m.processor(m, x), lambda m: setattr(m.processor, "factor", 2.0)),
    "a callable's class": (lambda m, x: m.processor(m, x), lambda m: setattr(Processor, "shift", 2.0)),
    "a bound method's object": (lambda m, x: m.bound(m, x), lambda m: setattr(m.bound.__self__, "factor", 2.0)),
    "an object in an object": (
        lambda m, x: x * m.processor.inner.scale,
        lambda m: setattr(m.processor.inner, "scale", 2.0),
    ),
    "an object in a list": (
        lambda m, x: x * m.space.rows[0].scale,
        lambda m: setattr(m.space.rows[0], "scale", 2.0),
    ),
    "behind a property": (lambda m, x: x * m.processor.scale, lambda m: setattr(m.processor, "factor", 2.0)),
    "a property": (lambda m, x: x * m.processor.scale, lambda m: setattr(Processor, "scale", property(lambda _: 2.0))),
    "the class of an attribute": (lambda m, x: x + m.processor.shift, lambda m: setattr(Processor, "shift", 2.0)),
    "a class attribute": (lambda m, x: x * m.factor, lambda m: setattr(Hidden, "factor", 2.0)),
    "a table of the class": (lambda m, x: x * m.table["scale"], lambda m: Hidden.table.update(scale=2.0)),
    "a class that is an attribute": (lambda m, x: x * m.kind.number, lambda m: setattr(Own, "number", 2.0)),
    "a metaclass": (lambda m, x: x * OfKind.scale, lambda m: setattr(Kind, "scale", 2.0)),
    "a Python module": (lambda m, x: x * m.python.scale, lambda m: setattr(m.python, "scale", 2.0)),
    "a global number": (lambda m, x: from_globals(x), lambda m: globals().update(NUMBER=2.0)),
    "a global table": (lambda m, x: from_globals(x), lambda m: TABLE.update(scale=2.0)),
    "a global array": (lambda m, x: from_globals(x), lambda m: ARRAY.fill(2)),
    "a global function": (lambda m, x: times(x), lambda m: globals().update(times=lambda x: x * 2)),
    "a numpy array": (lambda m, x: x * torch.tensor(m.settings.rows), lambda m: m.settings.rows.fill(2)),
    "a numpy array in shared memory": (
        lambda m, x: x * torch.from_numpy(m.settings.rows),
        lambda m: m.settings.rows.fill(2),
    ),
    "an element of a numpy array": (lambda m, x: x * float(m.settings.rows[0]), lambda m: m.settings.rows.fill(2)),
    "an array": (lambda m, x: x * m.array[0], lambda m: m.array.__setitem__(0, 2.0)),
    "bytes": (lambda m, x: x * m.bytes[0], lambda m: m.bytes.__setitem__(0, 2)),
    "a dict subclass": (lambda m, x: x * m.entries["scale"], lambda m: m.entries.update(scale=2.0)),
    "its attribute": (lambda m, x: x * m.entries.extra, lambda m: setattr(m.entries, "extra", 2.0)),
    "a mapping": (lambda m, x: x * m.mapping["scale"], lambda m: m.mapping.update(scale=2.0)),
    "a dict in a tuple": (lambda m, x: x * m.pair[1]["scale"], lambda m: m.pair[1].update(scale=2.0)),
    "a dataclass": (lambda m, x: x * m.settings.scale, lambda m: setattr(m.settings, "scale", 2.0)),
    "a partial": (lambda m, x: m.partial(x), lambda m: m.partial.keywords.update(scale=2.0)),
    "a closure": (lambda m, x: m.scaled(x), lambda m: m.rescale(2.0)),
    "a default argument": (lambda m, x: m.function(x), lambda m: setattr(m.function, "__defaults__", (2.0,))),
    "a default of a global": (lambda m, x: times(x), lambda m: setattr(times, "__defaults__", (2.0,))),
    "a keyword's default": (
        lambda m, x: times_keyword(x),
        lambda m: setattr(times_keyword, "__kwdefaults__", {"scale": 2.0}),
    ),
    "code": (lambda m, x: m.function(x), lambda m: setattr(m.function, "__code__", (lambda x, scale: -x).__code__)),
    "a tensor in a dict": (lambda m, x: x * m.held["scale"], lambda m: m.held.update(scale=torch.tensor(2.0))),
    "a tensor in place": (lambda m, x: x * m.held["scale"], lambda m: m.held["scale"].mul_(2)),
    "a tensor as a number": (lambda m, x: x * m.held["scale"].item(), lambda m: m.held["scale"].mul_(2)),
    "a tensor as a list": (lambda m, x: x * m.held["scale"].tolist(), lambda m: m.held["scale"].mul_(2)),
    "a module in a list": (lambda m, x: m.loose[0](x), lambda m: m.loose[0].weight.mul_(2)),
    "its weight": (
        lambda m, x: m.loose[0](x),
        lambda m: setattr(m.loose[0], "weight", nn.Parameter(torch.randn(WIDTH, WIDTH))),
    ),
}


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    kinds = [Processor, Hidden, Own, Kind]
    before = [{name: own for name, own in vars(kind).items() if not name.startswith("__")} for kind in kinds]
    function, scale = times, Processor.scale
    yield
    Hidden.table.update(scale=1.0)
    for kind, own in zip(kinds, before):
        for name, value in own.items():
            setattr(kind, name, value)
    Processor.scale = scale  # type: ignore[method-assign]
    TABLE.update(scale=1.0)
    ARRAY.fill(1)
    function.__defaults__, times_keyword.__kwdefaults__ = (1.0,), {"scale": 1.0}
    globals().update(NUMBER=1.0, times=function)


@pytest.mark.parametrize("name", STATE)
@torch.no_grad()
def test_the_next_session_sees_what_changed(name: str) -> None:
    read, change = STATE[name]
    torch.manual_seed(0)
    model = Hidden(read)
    optimized = optimize(model)
    decodes_with_one_capture(optimized, model)
    before = model(X)
    change(model)
    assert not torch.equal(model(X), before)
    with marche_fx.decoding(optimized):
        assert same(optimized(X), model(X))
        assert same(optimized(MOVED), model(MOVED))
    assert captures(optimized) == 1, "what was captured before is gone"
