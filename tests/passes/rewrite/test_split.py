"""The rewritten step computes exactly what the oracle says, on fewer rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.graphs import graph_text
from tests.networks import (
    BiasedAttention,
    CausalAttention,
    EinsumAttention,
    FoldedAttention,
    MaskedTextModel,
    PaddedTextModel,
    SinkAttention,
    Transformer,
    WithConvolution,
    small_mar,
)
from tests.program import Program

aten = torch.ops.aten

# ------------------------------------------------------------------------------------------------ the example


class SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))


def test_active_rows_are_computed_and_the_others_read_from_caches() -> None:
    program = Program(SelfAttention(4).eval(), "forward", [torch.zeros(2, 5, 4)])
    assert graph_text(program.plan.graph) == (
        """\
linear = aten.linear(leaves_0, q_weight)
linear_1 = aten.linear(leaves_0, k_weight)
linear_2 = aten.linear(leaves_0, v_weight)
scaled_dot_product_attention = aten.scaled_dot_product_attention(linear, linear_1, linear_2)
add = aten.add(leaves_0, scaled_dot_product_attention)
return add"""
    )
    assert graph_text(program.split.incremental.module.graph) == (
        """\
gather_active = gather_active(leaves_0, samples, active, 0, 1)
linear = aten.linear(gather_active, q_weight)
linear_1 = aten.linear(gather_active, k_weight)
linear_2 = aten.linear(gather_active, v_weight)
update_cache = update_cache(linear_1_cache, linear_1, samples, active, 0, 1)
update_cache_1 = update_cache(linear_2_cache, linear_2, samples, active, 0, 1)
scaled_dot_product_attention = aten.scaled_dot_product_attention(linear, update_cache, update_cache_1)
add = aten.add(gather_active, scaled_dot_product_attention)
update_cache_2 = update_cache(add_cache, add, samples, active, 0, 1)
return """
    )


# ----------------------------------------------------------------------------------------- equality with the oracle


@dataclass(frozen=True)
class Shape:
    samples: int
    tokens: int
    heads: int
    head_width: int

    @property
    def width(self) -> int:
        return self.heads * self.head_width


@dataclass(frozen=True)
class Case:
    """A model, the step that is rewritten, and arguments for it."""

    build: Callable[[Shape], nn.Module]
    arguments: Callable[[Shape, torch.Generator], list[Tensor]]
    step: str = "forward"


def embedded(shape: Shape, generator: torch.Generator) -> Tensor:
    return torch.randn(shape.samples, shape.tokens, shape.width, generator=generator)


def key_mask(shape: Shape, generator: torch.Generator) -> Tensor:
    """Bool ``[B, N]`` with at least one key a sample."""
    return torch.rand(shape.samples, shape.tokens, generator=generator) > torch.linspace(0, 0.8, shape.tokens)


def text_arguments(shape: Shape, generator: torch.Generator) -> list[Tensor]:
    ids = torch.randint(7, (shape.samples, shape.tokens), generator=generator)
    return [ids, torch.rand(shape.samples, generator=generator)]


def padded_arguments(shape: Shape, generator: torch.Generator) -> list[Tensor]:
    ids = torch.randint(7, (shape.samples, shape.tokens), generator=generator)
    ids[:, 0] = 1
    return [ids]


MAR_BUFFER = 2


def dropped(shape: Shape, generator: torch.Generator) -> Tensor:
    """MAR's mask ``[B, image tokens]``, one where masked, equally many in every sample."""
    length = shape.tokens - MAR_BUFFER
    count = int(torch.randint(length - 1, (), generator=generator))
    order = torch.rand(shape.samples, length, generator=generator).argsort(-1)
    return (order < count).float()


def encoder_arguments(shape: Shape, generator: torch.Generator) -> list[Tensor]:
    mask = dropped(shape, generator)
    tokens = torch.randn(*mask.shape, 4, generator=generator)
    return [tokens, mask, torch.randn(shape.samples, shape.width, generator=generator)]


def decoder_arguments(shape: Shape, generator: torch.Generator) -> list[Tensor]:
    mask = dropped(shape, generator)
    kept = MAR_BUFFER + int((mask[0] == 0).sum())
    return [torch.randn(shape.samples, kept, shape.width, generator=generator), mask]


def build_mar(shape: Shape) -> nn.Module:
    return small_mar(
        side=round((shape.tokens - MAR_BUFFER) ** 0.5), width=shape.width, buffer=MAR_BUFFER, heads=shape.heads
    )


def build_transformer(**options: Any) -> Callable[[Shape], nn.Module]:
    return lambda shape: Transformer(shape.tokens, shape.width, shape.heads, **options)


def one(*makers: Callable[[Shape, torch.Generator], Tensor]) -> Callable[[Shape, torch.Generator], list[Tensor]]:
    return lambda shape, generator: [make(shape, generator) for make in makers]


CASES = {
    "fused": Case(build_transformer(), one(embedded)),
    "written out, bias and mask": Case(build_transformer(attention=BiasedAttention), one(embedded, key_mask)),
    "heads folded into samples": Case(build_transformer(attention=FoldedAttention), one(embedded)),
    "einsum with a soft cap": Case(build_transformer(attention=EinsumAttention), one(embedded)),
    "attention sinks": Case(build_transformer(attention=SinkAttention), one(embedded)),
    "causal": Case(build_transformer(attention=CausalAttention), one(embedded)),
    "text, rotary, grouped queries, timestep": Case(
        lambda shape: MaskedTextModel(shape.tokens, shape.width, shape.heads), text_arguments
    ),
    "text, padding seen in the ids": Case(
        lambda shape: PaddedTextModel(shape.tokens, shape.width, shape.heads), padded_arguments
    ),
    "convolution inside": Case(lambda s: WithConvolution(s.tokens, s.width, s.heads), one(embedded)),
    "MAR encoder": Case(build_mar, encoder_arguments, "forward_mae_encoder"),
    "MAR decoder": Case(build_mar, decoder_arguments, "forward_mae_decoder"),
}

# All sizes different; tokens, width and samples equal; one sample.
SHAPES = [Shape(3, 7, 2, 6), Shape(4, 4, 2, 2), Shape(1, 6, 2, 4)]
MAR_SHAPES = [Shape(3, 11, 2, 4), Shape(6, 6, 2, 4), Shape(1, 6, 2, 2)]


@cache
def rewritten(
    name: str, shape: Shape, dtype: torch.dtype, depth: int | None = None, *, skip_unread: bool = False
) -> tuple[Case, nn.Module, Program]:
    case = CASES[name] if depth is None else Case(build_transformer(depth=depth), one(embedded))
    torch.manual_seed(0)
    model = case.build(shape).to(dtype).eval()
    arguments = drawn(case, shape, torch.Generator().manual_seed(0), dtype)
    return case, model, Program(model, case.step, arguments, skip_unread=skip_unread)


def drawn(case: Case, shape: Shape, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
    made = case.arguments(shape, generator)
    return [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in made]


@st.composite
def active_sets(draw: st.DrawFn, samples: int, tokens: int) -> Tensor:
    """``[B, A]``: other tokens in every sample, equally many, in any order."""
    count = draw(st.sampled_from([1, tokens]) | st.integers(1, tokens))
    chosen = [draw(st.permutations(range(tokens)))[:count] for _ in range(samples)]
    return torch.tensor(chosen)


@st.composite
def sequences(draw: st.DrawFn, samples: int, tokens: int) -> list[Tensor]:
    """Active sets of some steps, the first of all tokens, some the same as the step before."""
    steps = [torch.arange(tokens).expand(samples, tokens)]
    for _ in range(draw(st.integers(1, 4))):
        steps.append(steps[-1] if draw(st.booleans()) else draw(active_sets(samples, tokens)))
    return steps


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor], dtype: torch.dtype) -> None:
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}[dtype]
    assert len(found) == len(expected)
    for own, other in zip(found, expected):
        assert own.shape == other.shape
        assert (own - other).abs().max() <= tolerance * other.abs().max()


def original(model: nn.Module, step: str, arguments: Sequence[Tensor]) -> list[Tensor]:
    result = getattr(model, step)(*arguments)
    return [result] if isinstance(result, Tensor) else list(result)


@torch.no_grad()
def check_against_oracle(
    case: Case, model: nn.Module, program: Program, shape: Shape, steps: Sequence[Tensor], dtype: torch.dtype, seed: int
) -> None:
    program.reset()
    oracle = program.oracle()
    generator = torch.Generator().manual_seed(seed)
    for active in steps:
        arguments = drawn(case, shape, generator, dtype)
        found = program.step(arguments, active)
        assert_equal(found, oracle.step(arguments, active), dtype)
        if active.shape[1] == shape.tokens:
            assert_equal(found, original(model, case.step, arguments), dtype)


@pytest.mark.parametrize("name", CASES)
@given(draws=st.data())
def test_partial_refresh_equals_the_oracle(name: str, draws: st.DataObject) -> None:
    shape = draws.draw(st.sampled_from(MAR_SHAPES if "MAR" in name else SHAPES))
    dtype = draws.draw(st.sampled_from([torch.float64, torch.float32])) if name == "fused" else torch.float64
    steps = draws.draw(sequences(shape.samples, shape.tokens))
    case, model, program = rewritten(name, shape, dtype)
    check_against_oracle(case, model, program, shape, steps, dtype, draws.draw(st.integers(0, 999)))


@given(draws=st.data())
def test_partial_refresh_equals_the_oracle_whatever_the_sizes(draws: st.DataObject) -> None:
    sizes = st.integers(2, 9)
    shape = draws.draw(st.builds(Shape, st.integers(1, 4), sizes, st.integers(1, 3), st.integers(1, 5)))
    case, model, program = rewritten("fused", shape, torch.float64, 1)
    steps = draws.draw(sequences(shape.samples, shape.tokens))
    check_against_oracle(case, model, program, shape, steps, torch.float64, draws.draw(st.integers(0, 999)))


@pytest.mark.parametrize("name", CASES)
@given(draws=st.data())
@torch.no_grad()
def test_of_tokens_that_nobody_reads_only_what_others_read_is_computed(name: str, draws: st.DataObject) -> None:
    shape = draws.draw(st.sampled_from(MAR_SHAPES if "MAR" in name else SHAPES))
    case, _, program = rewritten(name, shape, torch.float64, skip_unread=True)
    program.reset()
    oracle, generator = program.oracle(), torch.Generator().manual_seed(draws.draw(st.integers(0, 999)))
    for number, active in enumerate(draws.draw(sequences(shape.samples, shape.tokens))):
        arguments = drawn(case, shape, generator, torch.float64)
        numbers = draws.draw(active_sets(shape.samples, active.shape[1]))
        read = torch.arange(shape.tokens).expand_as(active) if number == 0 else numbers
        found = program.step(arguments, active, read=[read])
        assert_equal(found, oracle.step(arguments, active, active.gather(1, read)), torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_float32_partial_refresh_equals_the_oracle(name: str) -> None:
    shape = (MAR_SHAPES if "MAR" in name else SHAPES)[0]
    case, model, program = rewritten(name, shape, torch.float32)
    order = torch.stack([torch.randperm(shape.tokens) for _ in range(shape.samples)])
    steps = [order, order[:, :1], order[:, 2:5], order[:, 2:5], order]
    check_against_oracle(case, model, program, shape, steps, torch.float32, seed=1)


# --------------------------------------------------------------------------------------------- it is no pretence


def fused_program() -> tuple[Shape, nn.Module, Program]:
    shape = SHAPES[0]
    _, model, program = rewritten("fused", shape, torch.float64)
    program.reset()
    return shape, model, program


@torch.no_grad()
def test_full_refresh_is_bit_identical_after_any_history() -> None:
    shape, model, program = fused_program()
    every = torch.arange(shape.tokens).expand(shape.samples, -1)
    generator = torch.Generator().manual_seed(0)
    for count in (shape.tokens, 2, 1, 5, shape.tokens):
        x = embedded(shape, generator).double()
        (found,) = program.step([x], every[:, :count])
    assert torch.equal(found, model(x))


@torch.no_grad()
def test_stale_keys_make_partial_refresh_differ_from_exact() -> None:
    shape, model, program = fused_program()
    active = torch.tensor([[0, 3], [1, 2], [6, 5]])
    generator = torch.Generator().manual_seed(0)
    first, second = (embedded(shape, generator).double() for _ in range(2))
    (before,) = program.step([first], torch.arange(shape.tokens).expand(shape.samples, -1))
    (found,) = program.step([second], active)
    is_active = torch.zeros(shape.samples, shape.tokens, dtype=torch.bool).scatter(1, active, True)
    moved = (found - before).abs().amax(-1)
    # Cached rows are those of the step before to the last bit; active ones moved, but read stale keys.
    assert torch.equal(moved > 0, is_active)
    assert ((found - model(second)).abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_unchanged_input_needs_no_refresh() -> None:
    shape, model, program = fused_program()
    x = embedded(shape, torch.Generator().manual_seed(0)).double()
    program.step([x], torch.arange(shape.tokens).expand(shape.samples, -1))
    (found,) = program.step([x], torch.tensor([[0, 3], [1, 2], [6, 5]]))
    assert_equal([found], [model(x)], torch.float64)


@torch.no_grad()
def test_a_sample_does_not_depend_on_what_shares_its_batch() -> None:
    shape, model, program = fused_program()
    alone = Program(model, "forward", [torch.zeros(1, shape.tokens, shape.width, dtype=torch.float64)])
    every = torch.arange(shape.tokens).expand(shape.samples, -1)
    generator = torch.Generator().manual_seed(0)
    for active in (every, torch.tensor([[0], [3], [6]]), torch.tensor([[2, 0], [4, 5], [1, 6]])):
        x = embedded(shape, generator).double()
        (together,) = program.step([x], active)
        (single,) = alone.step([x[1:2]], active[1:2])
        assert_equal([together[1:2]], [single], torch.float64)


class CountRows(TorchDispatchMode):
    """Counts the rows of every matrix product with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (aten.addmm.default, aten.mm.default):
            self.rows.append(args[-2].shape[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["fused", "MAR encoder", "MAR decoder"])
@torch.no_grad()
def test_linears_compute_only_active_rows(name: str) -> None:
    shape = (MAR_SHAPES if "MAR" in name else SHAPES)[0]
    case, _, program = rewritten(name, shape, torch.float64)
    program.reset()
    arguments = drawn(case, shape, torch.Generator().manual_seed(0), torch.float64)
    per_step = []
    for count in (shape.tokens, 4, 1):
        with CountRows() as counted:
            program.step(arguments, torch.arange(count).expand(shape.samples, -1))
        per_step.append(counted.rows)
    # Outside the region stands only the linear that embeds what enters it: the decoder's on kept tokens, the encoder's.
    outside = {"fused": 0, "MAR encoder": 1, "MAR decoder": 1}[name]
    for count, rows in zip((shape.tokens, 4, 1), per_step):
        assert len(rows) - outside >= 8
        assert rows[outside:] == [shape.samples * count] * (len(rows) - outside)
