"""A mask that is of numbers in one call and bool in the next, as in MAR's own loop, is captured once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.models.mar import MAR
from marche_fx.passes.capture.bools import numbers_of_bools, serves_bools
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.captured import Capture
from marche_fx.runtime.program import Program
from tests.passes.written.test_captures import again
from tests.sessions import WIDTH, grid_mar

STEPS = 6

# ------------------------------------------------------------------------------------------------ the official loop


def mask_by_order(mask_len: int, order: Tensor, bsz: int, seq_len: int) -> Tensor:
    """The official one: bool."""
    return torch.scatter(
        torch.zeros(bsz, seq_len), dim=-1, index=order[:, :mask_len], src=torch.ones(bsz, seq_len)
    ).bool()


@torch.no_grad()
def official_loop(model: MAR, orders: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """The official ``sample_tokens`` with guidance, without its head: what it reads of each step.

    Args:
        dtype: of all masks; when omitted those of the official loop: the first of numbers, and bool the others.
    """
    bsz, seq_len = len(orders), model.seq_len
    mask, tokens, read = torch.ones(bsz, seq_len), torch.zeros(bsz, seq_len, model.token_embed_dim), []
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        both = torch.cat([mask, mask], dim=0)
        both = both if dtype is None else both.to(dtype)
        x = model.forward_mae_encoder(torch.cat([tokens, tokens]), both, torch.ones(2 * bsz, WIDTH))
        z = model.forward_mae_decoder(x, both)
        mask_len = max(1, math.floor(seq_len * math.cos(math.pi / 2 * (step + 1) / STEPS)))
        mask_next = mask_by_order(mask_len, orders, bsz, seq_len)
        mask_to_pred = torch.logical_xor(mask.bool(), mask_next.bool())
        mask = mask_next
        read.append(z[torch.cat([mask_to_pred, mask_to_pred]).nonzero(as_tuple=True)] + 0)
        tokens = tokens.clone()
        tokens[mask_to_pred] = torch.randn(int(mask_to_pred.sum()), tokens.shape[-1], generator=generator)
    return read


@pytest.mark.parametrize("refresh", ["exact", SelectiveRefresh(0.1, warmup=1)])
def test_the_official_loop_is_one_capture_of_each_method(refresh: Any) -> None:
    mar = grid_mar()
    orders = mar.sample_orders(2, torch.Generator().manual_seed(0))
    optimized, other = (marche_fx.transform(mar, refresh=refresh, compile=False) for _ in range(2))
    with marche_fx.decoding(optimized):
        found = official_loop(optimized, orders)
    with marche_fx.decoding(other):
        numbers = official_loop(other, orders, torch.float32)
    assert [len(own.programs) for own in optimization_of(optimized).steps.values()] == [1, 1]
    # The masks are the same numbers, and so is what is computed, to the last bit.
    assert all(torch.equal(a, b) for a, b in zip(found, numbers, strict=True))
    report = marche_fx.report(optimized).session
    assert report is not None
    if refresh == "exact":
        for own, exact in zip(found, official_loop(mar, orders), strict=True):
            torch.testing.assert_close(own, exact, rtol=1e-4, atol=1e-5)
    else:
        assert report.streams == 1
        assert report.rows_ratio < 1


def test_a_capture_of_bools_does_not_serve_numbers() -> None:
    """Of numbers other than zero and one there is no bool."""
    optimized = marche_fx.transform(Around(lambda mask: mask * 2.0), compile=False)
    mask = torch.rand(2, N) > 0.5
    with torch.no_grad():
        for given_mask in (mask, 3.0 * mask, mask):
            assert torch.allclose(optimized(X, given_mask), optimized_of(optimized)(X, given_mask))
    assert [len(own.programs) for own in optimization_of(optimized).steps.values()] == [2]


# ----------------------------------------------------------------------------------------------------- what is proven

N, D = 12, 8
X = torch.randn(2, N, D, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """Attention over ``x``, of which each token is scaled by what ``function`` makes of a mask ``[B, N]``."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.function = nn.Linear(D, 3 * D), function
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * (1 + self.function(mask))[..., None]
        return F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1))


def optimized_of(optimized: nn.Module) -> nn.Module:
    return optimization_of(optimized).model


ALIKE: dict[str, Callable[[Tensor], Tensor]] = {
    "joined to numbers": lambda mask: torch.cat([torch.zeros(2, 1), mask], 1)[:, 1:],
    "divided": lambda mask: mask / 2,
    "compared": lambda mask: (mask == 0).float() + (mask > 0.5) * 2.0,
    "moved and multiplied": lambda mask: (mask[:, None, :].expand(-1, 3, -1) * torch.ones(N)).mean(1),
    "as a truth": lambda mask: torch.logical_not(mask).to(X.dtype),
    "cast where it is no number": lambda mask: mask.float(),
    "cast, and read by what reads no bools": lambda mask: (
        mask[:, None].float().softmax(-1)[:, 0] - mask.float().cumsum(1)
    ),
    "multiplied": lambda mask: (torch.ones(N) * mask + mask * torch.full((N,), 0.5)).cumsum(1),
}

OTHERWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "cast to others": lambda mask: mask.double().cumsum(1).to(X.dtype) if mask.dtype == torch.bool else mask.cumsum(1),
    "cast, and summed as it is": lambda mask: mask.float() * mask.sum(1, keepdim=True, dtype=X.dtype),
    "a branch on the dtype": lambda mask: (mask if mask.dtype == torch.bool else -mask).to(X.dtype),
    "a question about it": lambda mask: mask * -3.0 if torch.is_floating_point(mask) else mask * 1.0,
    "whole numbers": lambda mask: (mask * 2).sum(1, keepdim=True) / torch.tensor(3.0) + 0 * mask,
    "added to a bool": lambda mask: (mask + (X[..., 0] > 0)).to(X.dtype),
    "an additive mask": lambda mask: F.scaled_dot_product_attention(X, X, X, mask[:, None].expand(-1, N, -1))[..., 0],
    "asked for its values": lambda mask: mask * (2.0 if bool(mask.sum() == 3) else 1.0),
}


def captured(function: Callable[[Tensor], Tensor], mask: Tensor) -> Capture:
    return capture(Around(function), "forward", (X, mask), {})


@pytest.mark.parametrize("name", [*ALIKE, *OTHERWISE])
def test_one_capture_serves_both_where_a_bool_is_read_as_zero_and_one(name: str) -> None:
    function = {**ALIKE, **OTHERWISE}[name]
    mask = torch.rand(2, N, generator=torch.Generator().manual_seed(0)) > 0.5
    numbers, bools = captured(function, mask.float()), captured(function, mask)
    assert serves_bools(numbers, bools) == (name in ALIKE)
    assert numbers_of_bools(numbers, (X, mask), {}) == {1}
    assert numbers_of_bools(bools, (X, mask.float()), {}) == set()


@cache
def exactly(name: str) -> tuple[nn.Module, nn.Module]:
    """The model and the transformed one, which is captured once for all examples."""
    model = Around({**ALIKE, **OTHERWISE}[name])
    return model, marche_fx.transform(model, refresh="exact", compile=False)


@pytest.mark.parametrize("name", [*ALIKE, *OTHERWISE])
@given(draws=st.data())
def test_results_are_the_originals_whatever_the_masks(name: str, draws: st.DataObject) -> None:
    model, optimized = exactly(name)
    kinds = draws.draw(st.lists(st.sampled_from([torch.float32, torch.bool, torch.int64]), min_size=2, max_size=4))
    bits = st.lists(st.booleans(), min_size=2 * N, max_size=2 * N)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for kind in kinds:
            mask = torch.tensor(draws.draw(bits)).view(2, N).to(kind)
            # Attention without the fast path of additive masks that are no floats, which it refuses.
            if name == "an additive mask" and kind is torch.int64:
                continue
            torch.testing.assert_close(optimized(X, mask) + 0, model(X, mask))


@pytest.mark.parametrize(("name", "count"), [("joined to numbers", 1), ("a branch on the dtype", 2)])
def test_as_many_programs_as_there_are_ways_through_the_step(name: str, count: int) -> None:
    model = Around({**ALIKE, **OTHERWISE}[name])
    optimized = marche_fx.transform(model, compile=False)
    mask = torch.rand(2, N) > 0.5
    with torch.no_grad():
        for own in (mask.float(), mask, mask.float(), mask):
            torch.testing.assert_close(optimized(X, own), model(X, own))
    assert len(programs(optimized)) == count


def test_what_was_proven_is_saved() -> None:
    model = Around(ALIKE["compared"])
    optimized, mask = marche_fx.transform(model, compile=False), torch.rand(2, N) > 0.5
    with torch.no_grad():
        optimized(X, mask.float())
        optimized(X, mask)
    (program,) = programs(optimized)
    # What the graph, and code compiled of it, get.
    assert [own.dtype for own in program.given((X, mask), {}).values()] == [X.dtype, torch.float32]
    assert program.capture.bools == {frozenset({1})}
    assert again(program.capture).bools == {frozenset({1})}


def programs(optimized: nn.Module) -> list[Program]:
    return [*next(iter(optimization_of(optimized).steps.values())).programs]
