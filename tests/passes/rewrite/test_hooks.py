"""Signals of rows for refresh policies, and at which sites they are measured."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marche_fx import ArgumentError, PolicyError
from marche_fx.passes.rewrite.hooks import insert_hooks
from tests.by_hand import ByHand, moved, same, spread
from tests.graphs import graph_text
from tests.networks import Block, FusedAttention, Mlp, Transformer
from tests.passes.rewrite.hooked import Hooked, SelfAttention, everything
from tests.program import Program


class Generation:
    """Inputs and active tokens of some steps, all of them in the first."""

    def __init__(self, steps: int = 5, tokens: int = 7, width: int = 8) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, tokens, width, generator=generator)
        self.steps: list[tuple[Tensor, Tensor]] = []
        for number in range(steps):
            active = torch.stack([torch.randperm(tokens, generator=generator)[:3] for _ in range(2)])
            self.steps.append((x, active if number else everything(tokens)))
            x = x + 0.3 * torch.randn(x.shape, generator=generator)


@pytest.fixture
def transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer(7, 8, 2).eval()


def test_value_drift_becomes_an_output() -> None:
    program = Program(SelfAttention(4).eval(), "forward", [torch.zeros(2, 5, 4)])
    hooked = insert_hooks(program.split, program.plan, [lambda hooks: hooks.value_drift(1)])[0]
    lines = graph_text(hooked.incremental.module.graph).splitlines()
    (cache,) = {line.split("update_cache(")[1].split(",")[0] for line in lines if line.startswith("update_cache_1 =")}
    first = next(number for number, line in enumerate(lines) if line.startswith("gather_active_1 ="))
    assert [line.replace(cache, "v_cache") for line in lines[first : first + 4]] == [
        "gather_active_1 = gather_active(v_cache, samples, active, 0, 2)",
        "as_rows = as_rows(squeeze_2, 0, 2)",
        "as_rows_1 = as_rows(gather_active_1, 0, 2)",
        "row_drift = row_drift(as_rows, as_rows_1)",
    ]
    assert lines[first + 4].startswith("update_cache_1 ="), "the rows are read before they are overwritten"
    assert lines[-3:] == [
        "spread_rows = spread_rows(row_drift, active, 0, 5)",
        "div_scalar = aten.div(spread_rows, 1)",
        "return div_scalar",
    ]


@torch.no_grad()
def test_value_drift_is_how_far_recomputed_values_moved_from_the_cached_ones(transformer: Transformer) -> None:
    generation = Generation()
    program = Hooked(transformer, [generation.steps[0][0]], *(lambda h, n=n: h.value_drift(n) for n in (1, 2, "last")))
    hand = ByHand(list(transformer.blocks), transformer.position)
    for number, (x, active) in enumerate(generation.steps):
        signals = program.measure([x], [active])
        first, last = (spread(moved(own["v"], own["v before"]), active, 7) for own in hand.step(x, active))
        if number:
            for signal, expected in zip(signals, (first, (first + last) / 2, last), strict=True):
                assert same(signal, expected)
                assert int(signal.isnan().sum()) == 2 * (7 - 3), "and of the others nothing is known"


@pytest.mark.parametrize("site", [0, 1])
@torch.no_grad()
def test_a_function_of_rows_sees_the_rows_of_the_tensor_it_names(transformer: Transformer, site: int) -> None:
    generation, path = Generation(), f"blocks.{site}.attention"
    tensors = ("q", "k", "v", "output")

    def mean(now: Tensor, before: Tensor | None) -> Tensor:
        return now.mean(-1) if before is None else (now - 3 * before).mean(-1)

    program = Hooked(transformer, [generation.steps[0][0]], *(lambda h, t=t: h.rows(path, t, mean) for t in tensors))
    hand = ByHand(list(transformer.blocks), transformer.position)
    for x, active in generation.steps:
        signals, own = program.measure([x], [active]), hand.step(x, active)[site]
        for tensor, signal in zip(tensors, signals, strict=True):
            expected = mean(own[tensor], own.get(f"{tensor} before"))
            assert same(signal, spread(expected, active, 7)), tensor


class SharedLayer(nn.Module):
    """One block called twice, and another after it."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.other = (Block(8, FusedAttention(8, 2, 7), Mlp(8)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.shared(self.shared(x)))


@pytest.mark.parametrize(
    ("sites", "calls"),
    [
        (1, [0]),
        (2, [0, 1]),
        (9, [0, 1, 2]),
        ("all", [0, 1, 2]),
        ("last", [2]),
        ("shared.attention", [0]),
        (("shared.attention#2",), [1]),
        (("other.attention", "shared.attention#2"), [1, 2]),
    ],
)
@torch.no_grad()
def test_sites_are_chosen_by_number_by_place_and_by_path(sites: Any, calls: list[int]) -> None:
    torch.manual_seed(0)
    model, generation = SharedLayer().eval(), Generation(steps=3)
    program = Hooked(
        model, [generation.steps[0][0]], lambda hooks: hooks.value_drift(sites), lambda hooks: hooks.attention(sites)
    )
    hand = ByHand([model.shared, model.shared, model.other])
    for number, (x, active) in enumerate(generation.steps):
        drift, attention = program.measure([x], [active])
        own = [block for call, block in enumerate(hand.step(x, active)) if call in calls]
        assert same(attention, torch.stack([block["received"] for block in own]).mean(0))
        if number:
            expected = torch.stack([moved(block["v"], block["v before"]) for block in own]).mean(0)
            assert same(drift, spread(expected, active, 7))


@pytest.mark.parametrize("signal", ["attention", "value_drift"])
@pytest.mark.parametrize("sites", ["shared", ("shared.attention", "shared.attention#3"), ("all",)])
def test_a_site_that_does_not_exist_is_refused_and_the_others_are_listed(signal: str, sites: Any) -> None:
    program = Program(SharedLayer().eval(), "forward", [torch.zeros(2, 7, 8)])
    wrong = sites if isinstance(sites, str) else sites[-1]
    message = f"no attention site '{wrong}' to measure; there are shared.attention, shared.attention#2, other.attention"
    with pytest.raises(ArgumentError, match=message):
        insert_hooks(program.split, program.plan, [lambda hooks: getattr(hooks, signal)(sites)])


def test_a_function_of_rows_of_a_site_that_does_not_exist_is_refused() -> None:
    program = Program(SharedLayer().eval(), "forward", [torch.zeros(2, 7, 8)])
    with pytest.raises(ArgumentError, match=r"no attention site 'first'.* other\.attention"):
        insert_hooks(
            program.split, program.plan, [lambda hooks: hooks.rows("first", "v", lambda now, before: now.mean(-1))]
        )


class Scaled:
    """A callable object, which has no name."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, now: Tensor, before: Tensor | None) -> Tensor:
        return now.sum(-1) * self.factor


@torch.no_grad()
def test_a_function_of_rows_needs_no_name(transformer: Transformer) -> None:
    def scaled(now: Tensor, before: Tensor | None, factor: float) -> Tensor:
        return now.sum(-1) * factor

    functions = [lambda now, before: now.sum(-1) * 2, functools.partial(scaled, factor=2), Scaled(2)]
    x = torch.randn(2, 7, 8)
    program = Hooked(
        transformer, [x], *(lambda hooks, f=f: hooks.rows("blocks.0.attention", "v", f) for f in functions)
    )
    first, *others = program.measure([x], [everything(7)])
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize(
    ("function", "got"),
    [(lambda now, before: now.sum(-1, keepdim=True), r"\(2, 7, 1\)"), (lambda now, before: 1.0, "float")],
)
@torch.no_grad()
def test_a_function_that_gives_no_number_a_row_is_refused(transformer: Transformer, function: Any, got: str) -> None:
    x = torch.randn(2, 7, 8)
    program = Hooked(transformer, [x], lambda hooks: hooks.rows("blocks.0.attention", "v", function))
    with pytest.raises(PolicyError, match=rf"one number a row, \(2, 7\), got {got}"):
        program.measure([x], [everything(7)])
