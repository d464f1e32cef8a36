"""Rules that a user registers for operators of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import marche_fx
from marche_fx import ArgumentError, RuleError
from marche_fx.passes.rules.perturb import call
from marche_fx.passes.rules.table import RULES, dim_map, has_rule

from ...graphs import capture_function

aten = torch.ops.aten
numbers = itertools.count()


@pytest.fixture(autouse=True)
def _table() -> Iterator[None]:
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


def custom(function: Callable[..., Any]) -> Any:
    """``function`` as an operator of its own library."""
    name = f"marche_test::{function.__name__}_{next(numbers)}"
    op = torch.library.custom_op(name, function, mutates_args=())
    op.register_fake(function)
    return op


def modulate(x: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale[:, None])


def running_sum(x: Tensor) -> Tensor:
    return x.cumsum(1)


EXAMPLE = (torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64))


def test_a_rule_is_one_line() -> None:
    op = custom(modulate)
    marche_fx.register_rule(op, "b n c, b c -> b n c", example=EXAMPLE)
    graph = capture_function(lambda x, scale: F.gelu(op(x, scale)), *EXAMPLE).graph_module.graph
    node = next(node for node in graph.nodes if node.target is op._opoverload)
    assert has_rule(node)
    assert dim_map(node).is_token_wise(0, 1)
    assert dim_map(node).output == {(0, 0): 0, (0, 1): 1, (0, 2): 2, (1, 0): 0, (1, 1): 2}


@pytest.mark.parametrize("form", [lambda op: op, lambda op: op._opoverload, lambda op: op._opoverload.overloadpacket])
def test_an_operator_may_be_given_in_any_form(form: Callable[[Any], Any]) -> None:
    op = custom(modulate)
    marche_fx.register_rule(form(op), "b n c, b c -> b n c")
    assert op._opoverload in RULES
    marche_fx.check_rule(form(op), EXAMPLE, exactly=True)


def test_a_rule_that_fails_on_its_example_is_not_registered() -> None:
    op = custom(running_sum)
    with pytest.raises(RuleError, match=r"rule '\.\.\. -> \.\.\.' is not registered: .*changing its position 0 moved"):
        marche_fx.register_rule(op, "... -> ...", example=EXAMPLE[:1])
    assert op._opoverload not in RULES
    marche_fx.register_rule(op, "b n c -> b n c | mixes n", example=EXAMPLE[:1])
    with pytest.raises(RuleError, match="is not registered"):
        marche_fx.register_rule(op, "... -> ...", example=EXAMPLE[:1], replace=True)
    assert dim_map(call(op._opoverload, EXAMPLE[:1], {}).node).mixed == {(0, 1)}


def test_an_example_that_the_operator_refuses_registers_nothing() -> None:
    op = custom(modulate)
    with pytest.raises(ArgumentError, match="size of tensor"):
        marche_fx.register_rule(op, "b n c, b c -> b n c", example=(torch.randn(2, 5, 3), torch.randn(7, 7)))
    assert op._opoverload not in RULES


def test_a_rule_is_not_replaced_by_accident() -> None:
    with pytest.raises(RuleError, match=r"aten\.linear\.default has a rule already; pass replace=True"):
        marche_fx.register_rule(aten.linear.default, "... c, o c, o? -> ... o")
    with pytest.raises(RuleError, match=r"aten\.gelu\.default has a rule already"):
        marche_fx.register_rule(aten.gelu.default, "... -> ...")
    marche_fx.register_rule(aten.gelu.default, "... c -> ... c | mixes c", replace=True)
    assert aten.gelu.default in RULES


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("... c ... c", "write the operands, one '->' and the output"),
        ("a -> b -> c", "write the operands, one '->' and the output"),
        ("... c -> ... c, ...", "the one pattern after '->' stands for every output"),
        ("... c, -> ... c", "operand 1 is empty"),
        ("... c+1 -> ... c", r"'c\+1' in operand 0 is neither '\.\.\.' nor the name of an axis"),
        ("... c? n -> ... n", r"'c\?' in operand 0 is neither .*; '\?' ends an operand that may be missing"),
        ("n n -> n", "'n' stands twice in operand 0; a diagonal cannot be written"),
        ("n c -> c c", "'c' stands twice in the output"),
        ("n c -> ... c", r"'\.\.\.' is in the output but in no operand"),
        ("n c -> n c | n", "after '|' stands 'mixes' and the names of axes"),
        ("n c -> n c |", "after '|' stands 'mixes' and the names of axes"),
        ("n c -> n c | mixes d", "it mixes 'd', which is an axis of no operand"),
        ("b n c -> b n c", r"has 1 operands, but marche_test\.modulate_\d+\.default has 2: x, scale"),
    ],
)
def test_a_malformed_rule_is_quoted_with_what_is_wrong(rule: str, why: str) -> None:
    op = custom(modulate)
    with pytest.raises(RuleError, match=why.replace("|", r"\|")) as caught:
        marche_fx.register_rule(op, rule)
    assert repr(rule) in str(caught.value)
    assert op._opoverload not in RULES


def test_what_is_no_operator_is_refused() -> None:
    with pytest.raises(RuleError, match=r"is no operator.*torch\.library\.custom_op"):
        marche_fx.register_rule(modulate, "b n c, b c -> b n c")
    with pytest.raises(RuleError, match=r"several overloads; name one: aten\.add\.Tensor"):
        marche_fx.register_rule(aten.add, "..., ... -> ...")
    with pytest.raises(RuleError, match=r"aten\.add_\.Tensor writes its arguments"):
        marche_fx.register_rule(aten.add_.Tensor, "..., ... -> ...")
