"""The check of rules, checked: wrong rules are found and named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx
from torch._ops import OpOverload

from marche_fx import RuleError, check_rule
from marche_fx.passes.rules.dim_map import DimMap, Rule, finished
from marche_fx.passes.rules.functions import pointwise, reads_nothing
from marche_fx.passes.rules.notation import pattern
from marche_fx.passes.rules.perturb import call
from marche_fx.passes.rules.table import RULES, dim_map

from .calls import DIFFERENT, by_name, positional, r
from .examples import EXAMPLES

aten = torch.ops.aten


def test_a_right_rule_passes() -> None:
    check_rule(aten.layer_norm.default, (r(2, 5, 3), [3], r(3), r(3)), exactly=True)


def test_a_wrong_rule_is_an_error_that_names_operand_and_dimension_and_what_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(RULES, aten.cumsum.default, pointwise)
    with pytest.raises(RuleError) as caught:
        check_rule(aten.cumsum.default, (r(2, 5), 1))
    assert str(caught.value) == (
        "the rule of aten.cumsum.default: dimension 1 of operand 0 (self) is said to be dimension 1 of the output, "
        "row by row, but changing its position 0 moved positions [0, 1, 2, 3, 4] of it"
    )


def heads_of_q(node: fx.Node) -> DimMap:
    return finished(node, {(0, 1): 1})


def columns_aligned(node: fx.Node) -> DimMap:
    return finished(node, {(0, 0): 0, (1, 1): 1}, (), (((0, 1), (1, 1)),))


def rows_first(node: fx.Node) -> DimMap:
    return finished(node, {(0, 1): 0})


q, k = r(2, 4, 5, 3), r(2, 2, 5, 3)
grouped = (q, k, k, None, 0.0, False)
groups = (r(3, 4, 5), None, None, 3, 4, 5, 2, 1e-5)


@pytest.mark.parametrize(
    ("target", "rule", "args", "found"),
    [
        (aten.flip.default, pointwise, (r(2, 5), [1]), r"changing its position 0 moved positions \[4\]"),
        (aten.mm.default, pattern("n c, c o -> o n"), (r(5, 3), r(3, 5)), r"changing its position 0 moved positions"),
        (aten.gelu.default, rows_first, (r(2, 5),), r"has size 5 and cannot be dimension 0 of the output \[2, 5\]"),
        (aten.gelu.default, reads_nothing, (r(2, 5),), "is said to be read by nothing"),
        # Rows move alone, but the operator counts them: by position, and by an argument.
        (aten.tril.default, pointwise, (r(5, 5),), r"its rows \[.*\] do not give those rows"),
        (aten.native_group_norm.default, pattern("b c ... -> b c ... | mixes c ..."), groups, "the operator fails"),
        # The second output holds positions.
        (aten.max_pool2d_with_indices.default, pointwise, (r(2, 3, 4, 5), [1, 1]), "do not give those rows"),
        (aten.max.dim, pattern("b n c -> b c"), (r(2, 5, 5), -1), "moved positions"),
        (aten.mm.default, columns_aligned, (r(3, 3), r(3, 3)), r"is said to be one axis with \[\(1, 1\)\]"),
        (aten.bernoulli.p, pointwise, (r(40, 50), 0.5), "every call of the operator gives another result"),
    ],
    ids=lambda value: str(value) if isinstance(value, OpOverload) else "",
)
def test_every_kind_of_mistake_is_found(
    monkeypatch: pytest.MonkeyPatch, target: Any, rule: Any, args: tuple[Any, ...], found: str
) -> None:
    monkeypatch.setitem(RULES, target, rule)
    with pytest.raises(RuleError, match=found):
        check_rule(target, args)


def test_heads_of_queries_that_share_keys_are_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, aten.scaled_dot_product_attention.default, heads_of_q)
    with pytest.raises(RuleError, match=r"dimension 1 of operand 0 \(query\)"):
        check_rule(aten.scaled_dot_product_attention.default, grouped, {"enable_gqa": True})


def test_saying_less_than_is_true_is_a_mistake_only_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, aten.gelu.default, pattern("... c -> ... c | mixes c"))
    check_rule(aten.gelu.default, (r(2, 5),))
    with pytest.raises(RuleError, match="is said to be mixed but is dimension 1 of the output"):
        check_rule(aten.gelu.default, (r(2, 5),), exactly=True)


def always(found: DimMap) -> Rule:
    return lambda node: found


ONLY_SHAPES = (
    aten.copy.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
    aten.full_like.default,
    aten.ones_like.default,
    aten.zeros_like.default,
)
"""Operators that read the shape of an operand and no value, of which any rule is true."""


@pytest.mark.parametrize("target", [target for target in EXAMPLES if target not in ONLY_SHAPES], ids=str)
def test_every_rule_of_the_table_says_all_that_is_mixed_and_no_more(
    monkeypatch: pytest.MonkeyPatch, target: Any
) -> None:
    torch.manual_seed(0)
    for example in EXAMPLES[target](DIFFERENT):
        args, kwargs = positional(example), by_name(example)
        own = dim_map(call(target, args, kwargs).node)
        for out in set(own.output.values()):
            places = frozenset(place for place in own.output if own.output[place] == out)
            changed = DimMap(own.output, own.mixed ^ places, own.aligned)
            monkeypatch.setitem(RULES, target, always(changed))
            with pytest.raises(RuleError):
                check_rule(target, args, kwargs, exactly=True)
        monkeypatch.undo()
