"""A step cut at operators that no graph can hold."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from marche_fx.runtime.graphs.recorded import MOST_APART, Failure, RecordedStep
from tests.runtime.graphs.tape import Tapes

Step = tuple[RecordedStep, dict[fx.Node, str]]


def recorded(function: Callable[..., Any], *args: Any) -> Step:
    """``function``, which calls functions of the module alone, as a step."""
    apart: dict[fx.Node, str] = {}
    return RecordedStep(fx.symbolic_trace(function), args, apart), apart


@fx.wrap
def largest(x: Tensor) -> Tensor:
    """The host decides which row it is."""
    return x[int(x.sum(1).argmax())].clone()


@fx.wrap
def some(x: Tensor) -> Tensor:
    return x[x > 0]


@fx.wrap
def number(x: Tensor) -> float:
    return float(x.sum())


@fx.wrap
def view(x: Tensor) -> Tensor:
    """A view that the host chooses."""
    return x[int(x[0, 0]) :][:1]


@fx.wrap
def written(cache: Tensor, rows: Tensor) -> Tensor:
    return cache.add_(rows)


def chosen(x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
    double = x * 2
    row = largest(double)
    cache = written(cache, row + 1)
    return cache * 2, double.sum(0)


def test_an_operator_that_the_host_reads_runs_between_two_graphs() -> None:
    x, cache = torch.tensor([[1.0, 2.0], [5.0, 6.0]]), torch.zeros(2)
    step, apart = recorded(chosen, x, cache)
    tapes = Tapes()
    found = step.record(tapes)
    assert [own.name for own in apart] == ["largest"]
    assert ["not permitted" in why for why in apart.values()] == [True]
    assert [piece.recording is None for piece in step.pieces] == [False, True, False]
    assert torch.equal(found[0], torch.tensor([22.0, 26.0]))
    assert torch.equal(cache, torch.tensor([11.0, 13.0]))
    x.copy_(torch.tensor([[50.0, 60.0], [5.0, 6.0]]))
    found = step.replay()
    assert torch.equal(cache, torch.tensor([112.0, 134.0]))
    assert torch.equal(found[0], cache * 2)
    assert torch.equal(found[1], torch.tensor([110.0, 132.0]))
    assert tapes.replays == 4
    assert step.size > 0


def of_some(x: Tensor) -> Tensor:
    return some(x * 1).sum() + x.sum()


def of_number(x: Tensor) -> Tensor:
    return x * number(x * 1) + x


def of_view(x: Tensor) -> Tensor:
    return view(x).sum(0) + x[0]


@pytest.mark.parametrize("function", [of_some, of_number, of_view])
def test_what_graphs_cannot_go_by_ends_them(function: Callable[[Tensor], Tensor]) -> None:
    """Another shape, another number, another view: the rest of that step runs by itself, and the result is right."""
    x = torch.tensor([[0.0, 2.0], [5.0, 6.0]])
    step, _ = recorded(function, x)
    expected = function(x)
    assert torch.equal(step.record(Tapes()), expected)
    assert torch.equal(step.replay(), expected)
    assert step.changed is None
    x.copy_(torch.tensor([[1.0, 2.0], [5.0, 6.0]]))
    assert torch.equal(step.replay(), function(x))
    assert step.changed is not None
    assert not step.pieces


def many(x: Tensor) -> Tensor:
    for _ in range(MOST_APART + 1):
        x = x * number(x + 1)
    return x


def test_a_step_of_too_many_pieces_is_none() -> None:
    x = torch.ones(3) * 0.1
    step, apart = recorded(many, x)
    torch.testing.assert_close(step.record(Tapes()), many(x))
    assert step.failure is not None
    assert not step.pieces
    assert len(apart) == MOST_APART + 1


def test_a_failure_that_is_no_operators_leaves_the_rest_to_run_by_itself() -> None:
    x, cache = torch.tensor([[1.0, 2.0], [5.0, 6.0]]), torch.zeros(2)
    for graphs in (0, 1):
        step, _ = recorded(chosen, x, cache.zero_())

        class Refusing(Tapes):
            def record(self, run: Callable[[], None], graphs: int = graphs) -> Any:
                if self.recorded == graphs + (graphs > 0):
                    raise RuntimeError("the driver says no")
                return super().record(run)

        found = step.record(Refusing())
        assert step.failure == Failure("refused", "RuntimeError: the driver says no")
        assert torch.equal(found[0], torch.tensor([22.0, 26.0]))
        assert torch.equal(cache, torch.tensor([11.0, 13.0]))


def test_parts_of_a_value_are_no_work() -> None:
    def pairs(x: Tensor) -> Tensor:
        return two(x)[0] + two(x)[1]

    x = torch.ones(2)
    step, _ = recorded(pairs, x)
    step.record(Tapes())
    assert operator.getitem in {node.target for node in step.nodes}
    assert sum(own.recording is not None for own in step.pieces) == 1


@fx.wrap
def two(x: Tensor) -> tuple[Tensor, float]:
    return x + 1, number(x)


def test_memory_is_used_again_inside_of_a_graph() -> None:
    step, _ = recorded(lambda x: (((x + 1) * 2) - 3) / 4, torch.ones(4))
    step.record(Tapes())
    assert len(step.values) == 2, "the input and the result"
