"""Captures of a step: found by the sizes of a call, no more than there is room for, and told when dropped."""

from __future__ import annotations

import gc
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.api.step import OptimizedStep
from marche_fx.passes.lower.shared import Module, SharedCode
from marche_fx.runtime.program import Program
from tests.around import TOKENS, WIDTH, same, transformer


class Tagged(nn.Module):
    """A step that each tag is another kind of arguments for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()

    def forward(self, x: Tensor, tag: int = 0) -> Tensor:
        return self.inner(x)


def of(samples: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(samples, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def optimize(most: int, model: nn.Module | None = None) -> tuple[Any, OptimizedStep]:
    own = model or Tagged().eval()
    optimized = marche_fx.transform(own, refresh="exact", compile=False, verify=False, max_captures=most)
    return optimized, optimization_of(optimized).steps["forward"]


def tags(step: OptimizedStep) -> list[Any]:
    return [own.plan.original.inputs[1].value for own in step.programs]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_of_too_many_those_go_that_were_not_used_for_longest() -> None:
    optimized, step = optimize(3)
    for tag in (0, 1, 2, 0, 3):
        optimized(of(), tag)
    assert tags(step) == [0, 2, 3]
    optimized(of(), 2)
    optimized(of(), 4)
    assert tags(step) == [2, 3, 4]
    assert same(optimized(of(seed=1), 1), Tagged().eval()(of(seed=1))), "what was dropped is captured again"
    assert len(step.programs) == 3
    assert step.programs.dropped == 3


@torch.no_grad()
def test_what_is_dropped_is_freed_and_said_once_and_in_the_report() -> None:
    optimized, step = optimize(1)
    optimized(of(), 0)
    first = weakref.ref(step.programs[0])
    told = []
    for tag in range(1, 4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimized(of(), tag)
        told += [str(own.message) for own in caught if "more than 1 kinds of arguments" in str(own.message)]
    assert len(told) == 1
    gc.collect()
    assert first() is None
    notes = marche_fx.report(optimized).notes
    assert "forward: 3 captures dropped for others, since max_captures=1" in notes
    assert not any("dropped" in own for own in marche_fx.report(optimize(2)[0]).notes)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_what_an_open_session_has_caches_of_stays() -> None:
    optimized, step = optimize(1)
    with marche_fx.decoding(optimized):
        optimized(of(), 0).sum()
        held = step.programs[0]
        with marche_fx.decoding(optimized):
            for tag in (1, 2):
                optimized(of(), tag).sum()
        assert held in step.programs
        optimized(of(), 0).sum()
        assert step.programs[0] is held
    optimized(of(), 5)
    assert tags(step) == [5]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_a_call_is_compared_with_the_captures_of_its_sizes_and_values_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Program] = []
    accepts = Program.accepts

    def counting(program: Program, args: Any, kwargs: Any) -> bool:
        compared.append(program)
        return accepts(program, args, kwargs)

    monkeypatch.setattr(Program, "accepts", counting)
    optimized, step = optimize(64)
    counts = []
    for kinds in (2, 5):
        for tag in range(kinds):
            optimized(of(), tag)
        compared.clear()
        for tag in range(2):
            optimized(of(), tag)
        counts.append(len(compared))
    assert len(step.programs) == 5
    assert counts == [2, 2], "as many as calls, whatever else was captured"


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_captures_that_differ_in_more_than_sizes_are_told_apart() -> None:
    model = transformer()
    optimized, step = optimize(8, model)
    inputs = [of(1), of(2), of(1)]
    for x in inputs:
        assert same(optimized(x), model(x))
    assert len(step.programs) == 2
    model.double()
    assert same(optimized(of(1).double()), model(of(1).double()))
    assert len(step.programs) == 3, "of the same sizes, for weights and arguments of another dtype"
    model.float()
    assert same(optimized(of(1)), model(of(1)))
    assert len(step.programs) == 3


def product() -> fx.GraphModule:
    """``y = x @ x``, of a matrix of three rows."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(3, 3)
    graph.output((graph.call_function(torch.ops.aten.mm.default, (x, x)),))
    return fx.GraphModule({}, graph)


def calling(*code: Any) -> fx.GraphModule:
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(tuple(graph.call_function(own, (x,)) for own in code))
    return fx.GraphModule({}, graph)


def test_code_that_only_dropped_captures_call_is_forgotten() -> None:
    shared = SharedCode()
    first, second = (shared.compiled([Module(product(), ())], samples) for samples in (1, 2))
    shared.keep([calling(*first), calling(*second)])
    assert [own.code for own in shared.known] == [first, second]
    shared.keep([calling(*second)])
    assert [own.code for own in shared.known] == [second]
    assert shared.compiled([Module(product(), ())], 2) is second
