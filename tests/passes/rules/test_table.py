"""Every rule of the table, checked by changing one row of an operand and by taking some rows of it."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx

from marche_fx import check_rule
from marche_fx.passes.graph.operands import operands
from marche_fx.passes.rules.perturb import call
from marche_fx.passes.rules.reshapes import kept_dimensions
from marche_fx.passes.rules.table import RULES, dim_map, has_rule

from .calls import DIFFERENT, EQUAL, Sizes, by_name, ids, positional, r
from .examples import EXAMPLES

aten = torch.ops.aten

# ------------------------------------------------------------------------------------------------ the example


def test_linear_keeps_rows_and_mixes_channels() -> None:
    node = node_of(aten.linear.default, torch.randn(2, 5, 3), torch.randn(4, 3), torch.randn(4))
    found = dim_map(node)
    # Operand 0 is x [2, 5, 3], 1 the weight [4, 3], 2 the bias [4]; the output is [2, 5, 4].
    assert found.output == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (2, 0): 2}
    assert found.mixed == {(0, 2), (1, 1)}
    assert found.aligned == (((0, 2), (1, 1)),)
    assert found.is_token_wise(0, 1)


def node_of(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    return call(target, args, kwargs).node


# ------------------------------------------------------------------------------------------------ the whole table


@pytest.mark.parametrize("sizes", [DIFFERENT, EQUAL], ids=["different", "equal"])
@pytest.mark.parametrize("target", EXAMPLES, ids=str)
def test_the_rows_move_that_the_rule_says(target: Any, sizes: Sizes) -> None:
    torch.manual_seed(0)
    for example in EXAMPLES[target](sizes):
        assert has_rule(node_of(target, *positional(example), **by_name(example)))
        check_rule(target, positional(example), by_name(example), exactly=True)


@pytest.mark.parametrize("target", EXAMPLES, ids=str)
@settings(max_examples=8)
@given(sizes=st.builds(Sizes, *[st.integers(1, 4)] * 5), seed=st.integers(0, 99))
def test_no_rule_depends_on_sizes(target: Any, sizes: Sizes, seed: int) -> None:
    torch.manual_seed(seed)
    for example in EXAMPLES[target](sizes):
        check_rule(target, positional(example), by_name(example))


def test_every_rule_has_an_example() -> None:
    assert [str(target) for target in RULES if target not in EXAMPLES] == []


# ------------------------------------------------------------------------------------------ what is easily wrong


def test_heads_that_share_keys_are_not_the_heads_of_the_keys() -> None:
    q, k = r(2, 4, 5, 3), r(2, 2, 5, 3)
    found = dim_map(node_of(aten.scaled_dot_product_attention.default, q, k, k, enable_gqa=True))
    assert (1, 1) not in found.output
    assert (2, 1) not in found.output
    assert not found.is_token_wise(0, 1)
    assert found.is_token_wise(0, 2)


def test_operators_that_count_positions_have_no_rows_there() -> None:
    for target, args in [
        (aten.tril.default, (r(2, 5, 5),)),
        (aten.cumsum.default, (r(2, 5), 1)),
        (aten.flip.default, (r(2, 5), [1])),
        (aten.roll.default, (r(2, 5), [1], [1])),
        (aten.scatter.src, (r(2, 5), 1, ids(5, 2, 5), r(2, 5))),
    ]:
        found = dim_map(node_of(target, *args))
        assert found.is_token_wise(0, 0)
        assert not found.is_token_wise(0, 1)


def test_a_convolution_that_keeps_sizes_keeps_pixels_in_place_and_mixes_them() -> None:
    image, kernel = r(2, 3, 5, 6), r(4, 3, 3, 1)
    found = dim_map(node_of(aten.convolution.default, image, kernel, None, [1, 1], [1, 0], [1, 1], False, [0, 0], 1))
    assert found.output == {(0, 0): 0, (0, 2): 2, (0, 3): 3, (1, 0): 1}
    assert not found.is_token_wise(0, 2)
    assert found.is_token_wise(0, 3)


def test_what_drops_dimensions_by_size_or_reads_a_diagonal_has_no_rows() -> None:
    # One active token is an axis of size 1, which `squeeze()` would drop.
    assert dim_map(node_of(aten.squeeze.default, r(2, 1, 5))).output == {}
    assert dim_map(node_of(aten.einsum.default, "bii->bi", [r(2, 5, 5)])).output == {}


def test_random_operators_have_no_rows() -> None:
    for target, args in [
        (aten.native_dropout.default, (r(2, 5), 0.5, True)),
        (aten.bernoulli.p, (r(2, 5), 0.5)),
        (aten.rand_like.default, (r(2, 5),)),
        (aten.rrelu.default, (r(2, 5), 0.1, 0.3, True)),
        (aten.scaled_dot_product_attention.default, (r(2, 5, 3), r(2, 5, 3), r(2, 5, 3), None, 0.1)),
    ]:
        assert dim_map(node_of(target, *args)).output == {}


def test_a_value_keeps_the_rows_that_it_has() -> None:
    norm = node_of(aten.native_group_norm.default, r(4, 4, 5), None, None, 4, 4, 5, 2, 1e-5)
    mean = norm.graph.call_function(operator.getitem, (norm, 1))
    mean.meta["val"] = norm.meta["val"][1]
    assert dim_map(mean).output == {}


# ------------------------------------------------------------------------------------------------ the fallbacks


def test_an_operator_without_a_rule_mixes_everything() -> None:
    node = node_of(aten.as_strided.default, torch.randn(2, 5), [5, 2], [1, 5])
    assert not has_rule(node)
    assert dim_map(node).mixed == {(0, 0), (0, 1)}
    assert dim_map(node).output == {}


def test_a_number_in_place_of_a_tensor_is_no_operand() -> None:
    node = node_of(aten.add.Tensor, torch.randn(2, 5), 1)
    assert [operand is None for operand in operands(node)] == [False, True]


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((2, 5, 12), (2, 5, 3, 4), {0: 0, 1: 1}),
        ((2, 5, 3, 4), (2, 5, 12), {0: 0, 1: 1}),
        ((2, 3, 5, 4), (6, 5, 4), {2: 1, 3: 2}),
        ((2, 5, 4), (10, 4), {2: 1}),
        ((4, 4, 4), (4, 4, 2, 2), {0: 0, 1: 1}),
        # What stands between two equal sizes decides: the rows of [2, 6] are not those of [6, 2].
        ((2, 6), (6, 2), {}),
        ((2, 6, 3), (4, 3, 3), {2: 2}),
        # A dimension of size 1 stays what it is beside its neighbours: one sample remains a sample.
        ((1, 5, 12), (1, 5, 3, 4), {0: 0, 1: 1}),
        ((1, 5, 4), (1, 1, 5, 4), {0: 0, 1: 2, 2: 3}),
        ((1, 5, 1, 4), (1, 5, 4), {0: 0, 1: 1, 3: 2}),
        ((5, 4), (1, 5, 4), {0: 1, 1: 2}),
    ],
)
def test_view_keeps_dimensions_whose_elements_stay_together(
    before: tuple[int, ...], after: tuple[int, ...], kept: dict[int, int]
) -> None:
    assert kept_dimensions(before, after) == kept
