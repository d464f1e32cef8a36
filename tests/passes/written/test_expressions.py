"""Sizes of symbols are read as they were written, and nothing that would take long is."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy import functions

from marche_fx.passes.written.expressions import CLASSES, Symbols, write_expression
from marche_fx.passes.written.refused import UnusableError, malformed_is_unusable

S0, S1 = (sympy.Symbol(name, integer=True, positive=True) for name in ("s0", "s1"))
U0 = sympy.Symbol("u0", integer=True)

LEAVES = st.sampled_from([S0, S1, U0]) | st.integers(-20, 20).map(sympy.Integer)


def combined(parts: Any) -> Any:
    positive = st.integers(1, 9).map(sympy.Integer)
    return st.one_of(
        st.builds(sympy.Add, parts, parts),
        st.builds(sympy.Mul, parts, parts),
        st.builds(functions.FloorDiv, parts, positive),
        st.builds(functions.Max, parts, parts),
        st.builds(functions.Min, parts, parts),
    )


EXPRESSIONS = st.recursive(LEAVES, combined, max_leaves=8)
CONDITIONS = st.builds(
    lambda kind, left, right: kind(left, right),
    st.sampled_from([sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge]),
    EXPRESSIONS,
    EXPRESSIONS,
)


@given(EXPRESSIONS | CONDITIONS)
def test_an_expression_is_read_as_it_was_written(own: sympy.Basic) -> None:
    symbols = Symbols()
    written = json.loads(json.dumps(symbols.note(own)))
    again = Symbols.read(json.loads(json.dumps(symbols.write())))
    assert again.expression(written) == own


def test_numbers_of_symbols_have_the_ranges_and_values_of_the_trace() -> None:
    from torch._dynamo.source import ConstantSource

    env = ShapeEnv()
    symbol = env.create_symbol(6, ConstantSource("x"), dynamic_dim=DimDynamic.DYNAMIC)
    size = env.create_symintnode(symbol, hint=6)
    half: Any = (size + 2) // 4
    symbols = Symbols()
    written = symbols.note(half.node.expr, env)
    again = Symbols.read(json.loads(json.dumps(symbols.write())))
    number = again.number("int", written)
    assert isinstance(number, torch.SymInt)
    assert (number.node.expr, number.node.hint) == (half.node.expr, 2)
    assert again.env.var_to_range[symbol] == env.var_to_range[symbol]


def nested(depth: int) -> Any:
    found: Any = "s0"
    for _ in range(depth):
        found = ["Add", found, 1]
    return found


def tower(depth: int) -> Any:
    found: Any = 9
    for _ in range(depth):
        found = ["Mul", found, found]
    return found


@pytest.mark.parametrize(
    "written",
    [
        *("s1", "__import__('os')", None, True, 0.5, {}, [], [[]], ["exec", 1], ["Symbol", "a"], ["Add", None]),
        *(["Pow", 10, 10**9], ["Pow", "s0", 10**9], ["Pow", ["Pow", "s0", 16], 16], ["Pow", 2, "s0"], 10**30, [0, 1]),
        *(["Mul", 2**63, 2**63, 2**63], ["/", 1, 2**70], ["/", "s0", 2], ["atom", "zoo"], ["float", "nan"], ["/"]),
        *(nested(100_000), tower(12), ["Add", *range(2000)], ["FloorDiv", "s0", 0], ["Eq", 1]),
    ],
)
def test_what_is_no_size_is_refused_at_once(written: Any) -> None:
    symbols = Symbols.read({"s0": {"assumed": {"integer": True}, "range": None, "hint": None}})
    with pytest.raises(UnusableError), malformed_is_unusable():
        symbols.expression(written)


@pytest.mark.parametrize(
    "written",
    [
        *([], {"s0": 1}, {"s0": {}}, {"a b": {"assumed": {}, "range": None, "hint": None}}),
        {"s0": {"assumed": {"commutative": False}, "range": None, "hint": None}},
        {"s0": {"assumed": {"integer": 1}, "range": None, "hint": None}},
        {"s0": {"assumed": {}, "range": [5, 2], "hint": None}},
        {"s0": {"assumed": {}, "range": ["s0", 2, 3], "hint": None}},
        {"s0": {"assumed": {}, "range": None, "hint": "6"}},
    ],
)
def test_symbols_that_are_none_are_refused(written: Any) -> None:
    with pytest.raises(UnusableError), malformed_is_unusable():
        Symbols.read(written)


def test_a_function_that_is_not_known_is_not_written() -> None:
    with pytest.raises(TypeError, match="a size of PowByNatural"):
        write_expression(functions.PowByNatural(S0, S1))
    assert "PowByNatural" not in CLASSES
