"""A cache that an einsum reads lies in memory as the einsum multiplies it."""

from __future__ import annotations

import string
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.passes.rewrite.memory import empty_in_order, memory_order
from tests.networks import EinsumAttention, Transformer

aten = torch.ops.aten

COPIES = (aten.clone.default, aten._to_copy.default, aten.copy.default, aten.copy_.default)


class Copied(TorchDispatchMode):
    """Shapes of what operators copied."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in COPIES:
            self.shapes.append(found.shape)
        return found


def graph_of(equation: str, sizes: dict[str, int]) -> tuple[fx.Graph, list[fx.Node]]:
    graph = fx.Graph()
    values = [graph.placeholder(name) for name in ("left", "right")]
    for value, names in zip(values, equation.partition("->")[0].split(",")):
        value.meta["val"] = torch.zeros([sizes[name] for name in names], device="meta")
    graph.output(graph.call_function(aten.einsum.default, (equation, values)))
    return graph, values


@given(data=st.data())
def test_an_einsum_copies_no_operand_in_that_order(data: st.DataObject) -> None:
    names = string.ascii_lowercase[: data.draw(st.integers(3, 6))]
    sizes = {name: data.draw(st.integers(2, 4)) for name in names}
    shared, own, other, contracted = data.draw(st.permutations(names)), [], [], []
    shared, own, other, contracted = list(shared[:-3]), [shared[-3]], [shared[-2]], [shared[-1]]
    left, right, result = (
        "".join(data.draw(st.permutations(part)))
        for part in ([*shared, *own, *contracted], [*shared, *other, *contracted], [*shared, *own, *other])
    )
    _, values = graph_of(f"{left},{right}->{result}", sizes)
    operands = [
        empty_in_order(torch.empty(0), value.meta["val"].shape, memory_order(value), torch.float32).normal_()
        for value in values
    ]
    with Copied() as copied:
        torch.einsum(f"{left},{right}->{result}", *operands)
    assert not copied.shapes


def test_it_is_their_own_where_others_read_them_too() -> None:
    graph, (left, right) = graph_of("bihd,bjhd->bhij", {"b": 2, "i": 3, "j": 4, "h": 5, "d": 6})
    assert memory_order(right) == (0, 2, 1, 3)
    with graph.inserting_after(right):
        graph.call_function(aten.exp.default, (right,))
    assert memory_order(right) is None
    assert memory_order(left) == (0, 2, 1, 3)


@pytest.mark.parametrize("equation", ["bhid,bhjd->bhij", "...id,...jd->...ij", "bihd,bjhd,b->bhij"])
def test_it_is_their_own_where_nothing_is_gained_or_known(equation: str) -> None:
    graph = fx.Graph()
    values = [graph.placeholder(f"x{number}") for number in range(equation.count(",") + 1)]
    for value in values:
        value.meta["val"] = torch.zeros(2, 3, 4, 5, device="meta")
    graph.output(graph.call_function(aten.einsum.default, (equation, values)))
    assert memory_order(values[1]) is None


@torch.no_grad()
def test_a_partial_step_copies_no_cache() -> None:
    torch.manual_seed(0)
    samples, tokens, width = 2, 96, 16
    model = Transformer(tokens, width, 2, attention=EinsumAttention).eval()
    optimized = marche_fx.transform(model, compile=False, refresh=SelectiveRefresh(0.1, warmup=1))
    x = torch.randn(samples, tokens, width)
    with marche_fx.decoding(optimized):
        for step in range(4):
            x[:, step] += 1
            with Copied() as copied:
                optimized(x)[:, :4].sum()
    (program,) = optimization_of(optimized).steps["forward"].programs
    caches = [own for own in program.split.caches if own.role == "attention"]
    assert len(caches) == 4
    assert all(own.order == (0, 2, 1, 3) for own in caches)
    # Arguments are copied, and rows are.
    assert {own for own in copied.shapes if own.numel() >= caches[0].value.meta["val"].numel()} <= {x.shape}
