"""Caches of lower precision: cached rows are read rounded, and rows of the step itself as they are."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.graphs import graph_text
from tests.passes.rewrite.test_split import (
    CASES,
    MAR_SHAPES,
    SHAPES,
    Case,
    SelfAttention,
    Shape,
    drawn,
    original,
    sequences,
)
from tests.program import Program

DTYPES = [torch.bfloat16, torch.float16]


def test_rounded_caches_are_written_and_read_beside_the_rows_of_the_step() -> None:
    arguments = [torch.zeros(2, 5, 4)]
    program = Program(SelfAttention(4).eval(), "forward", arguments, cache_dtype=torch.bfloat16)
    # Only attention reads keys and values; ``add`` is the result.
    assert """\
update_cache = update_cache(linear_1_cache, linear_1, samples, active, 0, 1)
beside_rounded = beside_rounded(linear_1_cache, linear_1, samples, active, 0, 1)
update_cache_1 = update_cache(linear_2_cache, linear_2, samples, active, 0, 1)
beside_rounded_1 = beside_rounded(linear_2_cache, linear_2, samples, active, 0, 1)
scaled_dot_product_attention = aten.scaled_dot_product_attention(linear, beside_rounded, beside_rounded_1)
add = aten.add(gather_active, scaled_dot_product_attention)
update_cache_2 = update_cache(add_cache, add, samples, active, 0, 1)""" in graph_text(
        program.split.incremental.module.graph
    )
    kinds = {spec.name: spec.dtype for spec in program.split.caches}
    assert kinds == {"linear_1_cache": torch.bfloat16, "linear_2_cache": torch.bfloat16, "add_cache": torch.float32}


@cache
def rewritten(name: str, shape: Shape, dtype: torch.dtype) -> tuple[Case, nn.Module, Program]:
    case = CASES[name]
    torch.manual_seed(0)
    model = case.build(shape).double().eval()
    arguments = drawn(case, shape, torch.Generator().manual_seed(0), torch.float64)
    return case, model, Program(model, case.step, arguments, cache_dtype=dtype)


@pytest.mark.parametrize("name", CASES)
@given(draws=st.data())
@torch.no_grad()
def test_partial_refresh_equals_the_oracle_and_full_refresh_the_original(name: str, draws: st.DataObject) -> None:
    shape = draws.draw(st.sampled_from(MAR_SHAPES if "MAR" in name else SHAPES))
    case, model, program = rewritten(name, shape, draws.draw(st.sampled_from(DTYPES)))
    program.reset()
    oracle, generator = program.oracle(), torch.Generator().manual_seed(draws.draw(st.integers(0, 999)))
    for active in draws.draw(sequences(shape.samples, shape.tokens)):
        arguments = drawn(case, shape, generator, torch.float64)
        found, expected = program.step(arguments, active), oracle.step(arguments, active)
        assert differ(found, expected) < 1e-10
        if active.shape[1] == shape.tokens:
            assert differ(found, original(model, case.step, arguments)) < 1e-10


@torch.no_grad()
def test_a_partial_refresh_does_read_rounded_rows() -> None:
    shape = SHAPES[0]
    _, model, program = rewritten("fused", shape, torch.bfloat16)
    program.reset()
    x = torch.randn(shape.samples, shape.tokens, shape.width, generator=torch.Generator().manual_seed(1)).double()
    program.step([x], torch.arange(shape.tokens).expand(shape.samples, -1))
    found = program.step([x], torch.tensor([[0, 3], [1, 2], [6, 5]]))
    assert 1e-6 < differ(found, [model(x)]) < 1e-2


def differ(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference, over the largest element."""
    return max(float((own - other).abs().max() / other.abs().max()) for own, other in zip(found, expected, strict=True))
