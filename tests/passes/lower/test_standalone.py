"""Compiled code runs for the calls that it is right for, and no other call runs wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from marche_fx import ops
from marche_fx.passes.lower import compiled
from marche_fx.passes.lower.compiled import Compiled
from marche_fx.passes.lower.kept import KeptCode, Stored, key_of
from marche_fx.passes.lower.standalone import Code, Ragged, compile_alone
from marche_fx.saving.kernels import read_conditions, write_conditions
from tests.graphs import capture_function

ROWS = (Ragged(0, 1, 0), Ragged(3, 1, 0))
"""Of `layer`, how many tokens are active."""


def layer(scale: Any = 2) -> fx.GraphModule:
    """``(rows [2, A, 4], weight [4, 4], samples [2, 1], active [2, A], cache [2, 6, 4])`` to ``[2, A, 4]``."""
    graph = fx.Graph()
    rows, weight, samples, active, cache = (graph.placeholder(name) for name in "xwsac")
    product = graph.call_function(torch.ops.aten.linear.default, (rows, weight))
    graph.call_function(ops.update_cache, (cache, product, samples, active, 0, 1))
    taken = graph.call_function(ops.gather_active, (cache, samples, active, 0, 1))
    graph.output((graph.call_function(torch.ops.aten.mul.Tensor, (taken, scale)),))
    return fx.GraphModule({}, graph)


def inputs(count: int = 3, tokens: int = 6, dtype: torch.dtype = torch.float32) -> list[Any]:
    active = torch.stack([torch.randperm(tokens)[:count] for _ in range(2)])
    rows, weight = torch.randn(2, count, 4, dtype=dtype), torch.randn(4, 4, dtype=dtype)
    return [rows, weight, torch.arange(2)[:, None], active, torch.randn(2, tokens, 4, dtype=dtype)]


@cache
def code() -> Code:
    return compile_alone(layer(), inputs(), ROWS)


def transposed(own: Tensor) -> Tensor:
    return own.transpose(0, -1).contiguous().transpose(0, -1)


def apart(own: Tensor) -> Tensor:
    """With a gap behind every row."""
    wide = own.new_zeros(*own.shape[:-1], own.shape[-1] + 1)
    wide[..., :-1] = own
    return wide[..., :-1]


def shifted(own: Tensor) -> Tensor:
    """Not at the beginning of its memory."""
    return torch.cat([own.new_zeros(3), own.flatten()])[3:].view(own.shape)


def as_it_is(own: Tensor) -> Tensor:
    return own


def of_another_type(own: Tensor) -> Tensor:
    return own.double() if own.is_floating_point() else own.int()


CHANGES: tuple[Callable[[Tensor], Tensor], ...] = (as_it_is, as_it_is, transposed, apart, shifted, of_another_type)


def equal(run: Any, given_inputs: list[Any], expected: Any = None) -> bool:
    """Whether ``run`` returns and writes what the module does."""
    own, others = ([each.clone(memory_format=torch.preserve_format) for each in given_inputs] for _ in range(2))
    found, wanted = run(own), layer()(*others)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip((*found, *own), (*wanted, *others), strict=True))


@settings(max_examples=200)
@given(
    count=st.integers(0, 6),
    number=st.integers(0, 4),
    change=st.sampled_from(CHANGES),
    tokens=st.sampled_from([6, 6, 6, 7]),
    threads=st.sampled_from([0, 0, 0, 1]),
)
@torch.no_grad()
def test_code_runs_for_the_calls_that_it_is_right_for(
    count: int, number: int, change: Callable[[Tensor], Tensor], tokens: int, threads: int
) -> None:
    compiled_for, given_inputs, before = code(), inputs(count, tokens), torch.get_num_threads()
    plain = given_inputs[number]
    given_inputs[number] = own = change(plain)
    torch.set_num_threads(before + threads)
    try:
        held = compiled_for.conditions.hold_for(given_inputs)
        if held:
            assert equal(compiled_for, given_inputs)
    finally:
        torch.set_num_threads(before)
    is_same = (own.dtype, own.stride(), own.storage_offset()) == (plain.dtype, plain.stride(), 0)
    # None and one are sizes that code is made for.
    assert held == (is_same and count > 1 and (tokens, threads) == (6, 0))


@torch.no_grad()
def test_sizes_that_are_one_in_what_was_compiled_are_one_in_a_call() -> None:
    own = inputs(4)
    own[3] = own[3][:, :3].contiguous()
    assert not code().conditions.hold_for(own)


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "KEPT", KeptCode())
    monkeypatch.setattr(compiled, "WARNED", set())
    return


@torch.no_grad()
def test_another_kind_of_call_is_compiled_anew_and_too_many_run_operator_by_operator(
    nothing_kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "MOST", 2)
    module = Compiled(layer(), ROWS)
    for dtype in (torch.float32, torch.float64, torch.float32):
        assert equal(lambda own: module(*own), inputs(4, dtype=dtype))
    assert compiled.KEPT.count == len(module.known) == 2
    with pytest.warns(UserWarning, match=r"compiled for 2 kinds .* called with last are bfloat16 \[2, 4, 4\], "):
        assert equal(lambda own: module(*own), [*inputs(4, dtype=torch.bfloat16)])
    assert compiled.KEPT.count == 2


@torch.no_grad()
def test_modules_that_are_the_same_computation_share_their_code(nothing_kept: None) -> None:
    first, second = Compiled(layer(), ROWS), Compiled(layer(), ROWS)
    assert equal(lambda own: first(*own), inputs(4))
    assert equal(lambda own: second(*own), inputs(2))
    assert compiled.KEPT.count == 1
    assert first.known == second.known


def test_other_constants_and_other_open_sizes_are_another_computation() -> None:
    keys = [key_of(layer(scale), ROWS) for scale in (2, 2.0, True, 3)]
    keys += [key_of(layer(), ROWS[:1]), key_of(layer(), ROWS[:1], [(3, 1)])]
    keys.append(key_of(capture_function(torch.sin, torch.ones(2)).graph_module, ()))
    assert len({*keys}) == len(keys)
    assert key_of(layer(), ROWS) == key_of(layer(), (*ROWS,))


@torch.no_grad()
def test_a_tensor_that_is_given_twice_is_two_inputs(nothing_kept: None) -> None:
    module = Compiled(capture_function(lambda a, b: a + 2 * b, torch.ones(4), torch.ones(4)).graph_module, ())
    first, second = torch.randn(4), torch.randn(4)
    for a, b in ((first, first), (first, second)):
        assert torch.allclose(module(a, b)[0], a + 2 * b)
    assert compiled.KEPT.count == 1


def test_what_calls_a_users_function_has_no_name() -> None:
    own = layer()
    for node in own.graph.find_nodes(op="call_function", target=ops.gather_active):
        node.target = lambda *args: ops.gather_active(*args)
    assert key_of(own, ROWS) is None


@torch.no_grad()
def test_code_in_a_file_is_the_code_that_was_compiled() -> None:
    second, data = KeptCode(), code().data()
    assert data is not None
    second.restore([Stored("key", read_conditions(write_conditions(code().conditions)), data)])
    assert second.find("other", inputs()) is None
    assert second.find("key", inputs(dtype=torch.float64)) is None
    found = second.find("key", inputs(5))
    assert found is not None
    assert found is second.find("key", inputs(4))
    assert equal(found, inputs(5))
    assert found.conditions == code().conditions


class Names(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_a_mode_sees_every_operator() -> None:
    module = Compiled(layer(), ROWS)
    with Names() as names:
        module(*inputs())
    assert "aten.index_put_.default" in names.seen
    assert not module.known


@torch.no_grad()
def test_it_runs_in_inference_mode_too(nothing_kept: None) -> None:
    module = Compiled(layer(), ROWS)
    own = inputs(4)
    with torch.inference_mode():
        assert equal(lambda each: module(*each), own)
    assert equal(lambda each: module(*each), inputs(3))
    assert compiled.KEPT.count == 1
