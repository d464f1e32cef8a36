"""Functions under torch.jit.script, where Python has another by a name that they call."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx.errors import CaptureError
from marche_fx.passes.capture import scripts
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.scripts import is_what_python_has
from tests.around import MOVED, Around, X, check
from tests.passes.capture.test_capture import run


def moved(x: Tensor, by: Tensor) -> Tensor:
    return x * (1 + by)


@torch.jit.script
def anew(x: Tensor, by: Tensor) -> Tensor:
    return moved(x, by)


@torch.jit.script
def anew_with_dtype(x: Tensor, by: Tensor) -> Tensor:
    return moved(x, by).to(torch.float64)


def moved_since(x: Tensor, by: Tensor) -> Tensor:
    return x * (1 - by)


# Of the same shape, so that nothing but its values tells it from the first.
moved = moved_since  # noqa: F811


@torch.jit.script
def calls_what_is_there(x: Tensor, by: Tensor) -> Tensor:
    return moved(x, by) + F.silu(by)


@torch.jit.script
def chosen(x: Tensor, bias: Tensor | None, residual: Tensor | None, drop: float, training: bool = False) -> Tensor:
    out = x if bias is None else x + bias
    if drop < 0 or drop > 1:
        raise ValueError(f"no probability: {drop}")
    out = F.dropout(out, p=drop, training=training)
    return out if residual is None else residual + 2 * out


@torch.jit.script
def of_sizes(x: Tensor) -> Tensor:
    batch, tokens = x.shape[0], x.size(1)
    halves = x.reshape(batch * tokens, -1).chunk(2, -1)
    first, second = halves[0], halves[1]
    return torch.cat([second, first], dim=-1).reshape(batch, tokens, x.shape[2]) / (tokens - 1)


@torch.jit.script
def of_values(x: Tensor) -> Tensor:
    return x * 2 if bool(x.sum() > 0) else x


@torch.jit.script
def in_loops(x: Tensor, times: int) -> Tensor:
    for time in range(times):
        x = torch.tanh(x + 0.1 * time)
    while times > 0:
        times = times - 2
        x = x * 2
    return x


@torch.jit.script
def in_comprehensions(x: Tensor) -> Tensor:
    halves = [moved(own, own) for own in x.chunk(2, -1)]
    return torch.cat(halves, -1)


class Sum:
    def __init__(self, value: Tensor) -> None:
        self.value = value

    def with_added(self, value: Tensor) -> Tensor:
        return self.value + value


@torch.jit.script
def in_classes(x: Tensor) -> Tensor:
    return Sum(x).with_added(x * 2)


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


def same(function: Callable[..., Tensor], *args: Tensor) -> None:
    model = Calls(function)
    assert torch.equal(run(capture(model, "forward", args), model, *args)[0], model(*args))


@pytest.fixture
def nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every function under torch.jit.script is taken for one that Python no longer has."""
    monkeypatch.setattr(scripts, "is_what_python_has", lambda function: False)


def test_which_functions_python_no_longer_has() -> None:
    assert not is_what_python_has(anew)
    assert not is_what_python_has(anew_with_dtype)
    assert all(
        map(
            is_what_python_has,
            (calls_what_is_there, chosen, of_sizes, of_values, in_loops, in_comprehensions, in_classes),
        )
    )


def test_a_function_that_calls_one_defined_anew_is_captured_as_it_was_compiled() -> None:
    x, by = torch.randn(2, 3), torch.randn(2, 3)
    same(anew, x, by)
    check(Around(lambda model, x: anew(model.inner(x), model.inner(x))), ((X,), {}), ((MOVED,), {}))


def test_its_operators_are_those_that_python_calls() -> None:
    captured = capture(Calls(anew), "forward", (torch.randn(2, 3), torch.randn(2, 3)))
    targets = [str(node.target) for node in captured.graph_module.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.add.Tensor", "aten.mul.Tensor"]


def test_one_that_cannot_be_captured_is_named_with_its_operator_and_line() -> None:
    said = r"aten::to \(test_scripts\.py:\d+\) of anew_with_dtype under torch\.jit\.script .*a name of its own"
    with pytest.raises(CaptureError, match=said):
        capture(Calls(anew_with_dtype), "forward", (torch.randn(2, 3), torch.randn(2, 3)))


@pytest.mark.usefixtures("nothing_is_there")
@given(bias=st.booleans(), residual=st.booleans(), drop=st.sampled_from([0.0, 0.3]))
def test_the_compiled_graph_takes_the_branches_of_its_arguments(bias: bool, residual: bool, drop: float) -> None:
    def function(x: Tensor) -> Tensor:
        return chosen(x, x + 1 if bias else None, residual=x * 3 if residual else None, drop=drop)

    same(function, torch.randn(2, 3, 4))


@pytest.mark.usefixtures("nothing_is_there")
@given(times=st.integers(0, 4))
def test_the_compiled_graph_takes_its_turns(times: int) -> None:
    same(lambda x: in_loops(x, times), torch.randn(2, 3))


@pytest.mark.parametrize("function", [in_comprehensions, in_classes])
def test_what_is_there_is_traced_as_python(function: Callable[..., Tensor]) -> None:
    same(function, torch.randn(2, 4))


def test_a_function_that_is_none_of_python_is_captured_as_it_was_compiled() -> None:
    compiled = torch.jit.CompilationUnit("def loaded(x):\n    return torch.tanh(x) + 1\n").loaded
    same(lambda x: compiled(x), torch.randn(2, 3))


@pytest.mark.usefixtures("nothing_is_there")
def test_the_compiled_graph_raises_what_it_raises() -> None:
    with scripts.compiled_functions_traced(), pytest.raises(RuntimeError, match=r"^no probability: 2\.0$"):
        chosen(torch.randn(2, 3), None, None, 2.0)


@pytest.mark.usefixtures("nothing_is_there")
def test_sizes_of_the_compiled_graph_stay_symbols() -> None:
    model = Calls(of_sizes)
    captured = capture(model, "forward", (torch.randn(2, 6, 4),), dynamic=[{0, 1}])
    for batch, tokens in ((2, 6), (3, 9)):
        x = torch.randn(batch, tokens, 4)
        assert torch.equal(run(captured, model, x)[0], model(x))


@pytest.mark.usefixtures("nothing_is_there")
def test_the_compiled_graph_asks_for_values_as_python_does() -> None:
    model = Around(lambda model, x: of_values(model.inner(x)))
    with torch.no_grad(), pytest.raises(CaptureError, match="A graph has one path"):
        marche_fx.transform(model)(X)


def test_other_threads_call_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def is_there(function: object) -> bool:
        asked.append(threading.get_ident())
        return True

    monkeypatch.setattr(scripts, "is_what_python_has", is_there)
    x = torch.ones(2)
    with scripts.compiled_functions_traced():
        anew(x, x)
        other = threading.Thread(target=anew, args=(x, x))
        other.start()
        other.join()
    anew(x, x)
    assert asked == [threading.get_ident()]
