"""What a step may not do is refused by name and line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import CaptureError, UnsupportedModelError
from marche_fx.api import captures as of_steps
from tests.around import (
    MOVED,
    WIDTH,
    Around,
    X,
    captures,
    decodes_with_one_capture,
    optimize,
    refused,
    same,
    transformer,
)


class KeepsLast(nn.Module):
    """State of each kind, in the module ``memory``."""

    calls: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("calls", torch.zeros(()))
        self.last: Tensor | None = None
        self.count = 1
        self.store: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "calls":
            self.calls = self.calls + 1
        elif self.how == "last":
            last, self.last = self.last, x
            return x if last is None else x + last
        elif self.how == "asked":
            is_first = not hasattr(self, "seen")
            self.seen = x
            return x if is_first else -x
        elif self.how == "written":
            self.last = x + 1
            self.calls = self.last.mean()
            return self.last * self.calls
        elif self.how == "count":
            self.count += 1
        elif self.how == "store":
            self.store["x"] = x
        return x


class Counted(nn.Identity):
    def __init__(self) -> None:
        super().__init__()
        self.count = 1


class CountsAlong(nn.Module):
    """Counts in its child, whose own methods assign nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Counted()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.kept.count
        self.kept.count += 1
        return x


def test_an_attribute_of_a_child_that_is_assigned_from_outside_is_refused_by_name_and_line() -> None:
    model = Around(lambda model, x: model.inner(model.memory(x)), memory=CountsAlong())
    line = CountsAlong.forward.__code__.co_firstlineno + 2
    refused(
        model, UnsupportedModelError, rf"assigns the attribute 'memory\.kept\.count' \(test_refusals\.py:{line}\)", X
    )


@pytest.mark.parametrize("how", ["calls", "last", "asked", "count", "store"])
def test_attributes_assigned_in_the_step_are_refused_by_name_and_line(how: str) -> None:
    model = Around(lambda model, x: model.inner(model.memory(x)), memory=KeepsLast(how))
    name = "seen" if how == "asked" else how
    refused(model, UnsupportedModelError, rf"assigns the attribute 'memory\.{name}' \(test_refusals\.py:\d+\)", X)
    memory = model.get_submodule("memory")
    assert isinstance(memory, KeepsLast)
    assert all(type(left) is Tensor for left in (memory.calls, memory.last, memory.store.get("x")) if left is not None)


@torch.no_grad()
def test_attributes_and_buffers_that_a_step_writes_before_it_reads_them_are_no_state() -> None:
    model = Around(lambda model, x: model.inner(model.memory(x)), memory=KeepsLast("written"))
    optimized = optimize(model)
    decodes_with_one_capture(optimized, model)


class LastLength(nn.Module):
    """Keeps a table for the last length only."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) != x.shape[1]:
            self.table = torch.arange(x.shape[1])[:, None] / 10
        return x + self.table


@torch.no_grad()
def test_sessions_of_two_lengths_in_turn_cost_two_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Around(lambda model, x: model.inner(model.table(x)), table=LastLength())
    model.inner.position = nn.Parameter(torch.zeros(1, 1, WIDTH))
    made, count = of_steps.make_plan, [0]

    def counting(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return made(*args, **kwargs)

    monkeypatch.setattr(of_steps, "make_plan", counting)
    optimized = optimize(model)
    for length in (9, 12, 9, 12, 9):
        with marche_fx.decoding(optimized):
            assert same(optimized(X[:, :length]), model(X[:, :length]))
    assert count[0] == 2


@torch.no_grad()
def test_a_table_set_by_hand_is_used() -> None:
    model = Around(lambda model, x: model.inner(model.table(x)), table=LastLength())
    optimized = optimize(model)
    assert same(optimized(X), model(X))
    table = model.get_submodule("table")
    assert isinstance(table, LastLength)
    table.table = torch.ones(X.shape[1], 1)
    assert same(optimized(X), model(X))


class Caches(nn.Module):
    """Makes a table when it meets a larger length than before."""

    table: Tensor | None

    def __init__(self, *, as_buffer: bool) -> None:
        super().__init__()
        self.as_buffer = as_buffer
        self.keep(None)

    def keep(self, table: Tensor | None) -> None:
        if self.as_buffer:
            self.register_buffer("table", table, persistent=False)
        else:
            self.table = table

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) < x.shape[1]:
            self.keep(torch.arange(x.shape[1])[:, None])
        assert self.table is not None
        return x + self.table[-x.shape[1] :] / 10


@pytest.mark.parametrize("as_buffer", [False, True])
@torch.no_grad()
def test_tables_that_a_model_makes_and_keeps_are_no_state(as_buffer: bool) -> None:
    model = Around(lambda model, x: model.inner(model.caches(x)), caches=Caches(as_buffer=as_buffer))
    model.inner.position = nn.Parameter(torch.zeros(1, 1, WIDTH))
    optimized = optimize(model)
    for length in (9, 12, 9, 12):
        with marche_fx.decoding(optimized):
            assert same(optimized(X[:, :length]), model(X[:, :length]))
            assert same(optimized(MOVED[:, :length]), model(MOVED[:, :length]))
    assert captures(optimized) == 2


def write_buffer(model: Any, x: Tensor) -> Tensor:
    model.norm.running_mean.mul_(0.5)
    return model.inner(x)


def write_weight(model: Any, x: Tensor) -> Tensor:
    model.inner.head.weight.mul_(0.5)
    return model.inner(x)


def write_argument(model: Any, x: Tensor) -> Tensor:
    x.mul_(model.inner.head.bias.mean())
    return model.inner(x)


@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (write_buffer, r"the buffer 'norm\.running_mean'"),
        (write_weight, r"the weight 'inner\.head\.weight'"),
        (write_argument, "positional argument 0"),
    ],
)
def test_writes_in_place_are_refused_by_name_and_line(forward: Callable[..., Tensor], what: str) -> None:
    model = Around(forward, norm=nn.BatchNorm1d(WIDTH))
    refused(model, UnsupportedModelError, rf"writes {what} in aten\.mul.*\.py:\d+\)", X.clone())


def write_before_reading(model: Any, x: Tensor) -> Tensor:
    model.norm.running_mean.copy_(model.inner.head.weight.sum(0) / 10)
    return model.inner(x + model.norm.running_mean)


@torch.no_grad()
def test_a_buffer_written_before_it_is_read_is_no_state() -> None:
    model = Around(write_before_reading, norm=nn.BatchNorm1d(WIDTH))
    optimized = optimize(model)
    assert same(optimized(X), model(X))
    model.inner.head.weight.mul_(2)
    assert same(optimized(X), model(X))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_a_branch_on_values_is_refused_by_its_line() -> None:
    line = Branching.forward.__code__.co_firstlineno + 1
    match = rf"at branching \(test_refusals\.py:{line}, `if x\.sum\(\) > 0:`\).*(?s:.)*torch\.where"
    refused(Around(lambda model, x: model.branching(model.inner(x)), branching=Branching()), CaptureError, match, X)


def test_an_error_of_the_model_itself_is_named_with_its_line() -> None:
    refused(transformer(), CaptureError, r"networks\.py:\d+, `x = x \+ self\.position`", X[..., :3])


def test_weights_without_values_are_refused() -> None:
    model = transformer()
    model.head.to("meta")
    refused(model, UnsupportedModelError, r"'head\.weight' of Transformer is on the meta device.*load the weights", X)


def test_weights_of_inference_mode_are_used_as_they_are() -> None:
    with torch.inference_mode():
        model = transformer()
    optimized = optimize(model)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(optimized(X).clone(), model(X))
    assert captures(optimized) == 1


@dataclass
class Store:
    hidden: Tensor | None = None


def keep(store: dict[str, Tensor], x: Tensor) -> None:
    store["hidden"] = x


LEFT: dict[str, tuple[Any, Callable[[Any, Tensor], Any]]] = {
    "in a dict": ({}, lambda store, x: keep(store, x)),
    "in a list": ([], lambda store, x: store.append(x)),
    "in a dict of dicts": ({"own": {}}, lambda store, x: keep(store["own"], x)),
    "in a field": (Store(), lambda store, x: setattr(store, "hidden", x)),
    "taken out": ({"hidden": X}, lambda store, x: store.pop("hidden")),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_step_leaves_in_its_arguments_is_refused_by_name_and_line(name: str) -> None:
    store, leave = LEFT[name]

    def forward(model: Any, x: Tensor, store: Any = None) -> Tensor:
        x = model.inner(x)
        leave(store, x)
        return x

    before = copy.deepcopy(store)
    message = r"Around\.forward writes into argument 'store' in test_refusals\.py:\d+.*use_cache=False"
    refused(Around(forward), UnsupportedModelError, message, X, store=store)
    assert same(store, before)


def test_a_container_that_is_only_read_is_none_that_is_written() -> None:
    model = Around(lambda model, x, store: model.inner(x + store["shift"][0]))
    with torch.no_grad():
        assert same(optimize(model)(X, {"shift": [MOVED]}), model(X, {"shift": [MOVED]}))


BRANCHING: dict[str, Callable[..., Tensor]] = {
    "branch": lambda model, x: x if model.inner(x).sum() > 0 else -x,
    "number": lambda model, x: model.inner(x)[:, : int(model.inner(x).sum().item())],
    "numpy": lambda model, x: torch.from_numpy(model.inner(x).numpy()),
    "wrong": lambda model, x: model.inner(x[..., :3]),
}


@pytest.mark.parametrize("name", BRANCHING)
def test_nothing_is_printed_before_a_refusal(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    refused(Around(BRANCHING[name]), marche_fx.MarcheError, r"\(\w+\.py:\d+", X)
    assert capfd.readouterr() == ("", "")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(7, WIDTH)
        self.inner = transformer()
        self.back = nn.Linear(3, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        return self.back(self.inner(self.word(ids))) @ self.word.weight.data.t()


@torch.no_grad()
def test_the_data_of_a_weight_is_the_weight() -> None:
    model = Tied().eval()
    ids = torch.arange(2 * X.shape[1]).view(2, -1) % 7
    optimized = optimize(model)
    assert same(optimized(ids), model(ids))
    model.word.weight.mul_(2)
    assert same(optimized(ids), model(ids))


@torch.no_grad()
def test_weights_recomputed_in_every_call_are_no_state() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for wrap in (nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm):
            model = transformer()
            wrap(model.head)
            optimized = optimize(model.eval())
            assert torch.allclose(optimized(X).clone(), model(X), atol=1e-5)
            next(model.head.parameters()).mul_(2)
            assert torch.allclose(optimized(X).clone(), model(X), atol=1e-5)
            assert captures(optimized) == 1
