"""The signal of attention in whatever way a model spells it: heads, masks, copies of samples, windows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx import ArgumentError
from marche_fx.passes.rewrite.hooks import Hooks, insert_hooks
from tests.passes.rewrite.hooked import Hooked, everything, received
from tests.program import Program


class Spelled(nn.Module):
    """One layer of attention of two heads over ``[B, N, 8]``, spelled by ``attend(q, k, v)`` ``[B, N, 2, 4]``."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], copies: int = 1) -> None:
        super().__init__()
        self.qkv, self.attend, self.copies = nn.Linear(8, 24), attend, copies

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.copies == 1 else torch.cat([x * (number + 1) for number in range(self.copies)])
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).unbind(2)
        return x + self.attend(q, k, v).flatten(2)


def heads_second(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    q, k, v = (own.transpose(1, 2) for own in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2)


def heads_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bihd,bjhd->hbij", q / 2, k).softmax(-1)
    return torch.einsum("hbij,bjhd->bihd", weights, v)


def heads_first_fused(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    q, k, v = (own.permute(2, 0, 1, 3) for own in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).permute(1, 2, 0, 3)


def keys_before_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bihd,bjhd->bjhi", q / 2, k).softmax(1)
    return torch.einsum("bjhi,bjhd->bihd", weights, v)


def folded(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    samples, tokens = q.shape[:2]
    q, k, v = (own.transpose(1, 2).reshape(samples * 2, tokens, 4) for own in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    return y.view(samples, 2, tokens, 4).transpose(1, 2)


def folded_and_written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    samples, tokens = q.shape[:2]
    q, k, v = (own.transpose(1, 2).reshape(samples * 2, tokens, 4) for own in (q, k, v))
    y = torch.bmm(torch.bmm(q, k.transpose(1, 2) / 2).softmax(-1), v)
    return y.view(samples, 2, tokens, 4).transpose(1, 2)


def alone(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """One head after another, none of which has a dimension; the mean is over sites."""
    pairs = zip(q.unbind(2), k.unbind(2), v.unbind(2))
    return torch.stack([F.scaled_dot_product_attention(*own, mask) for own in pairs], 2)


TOGETHER = (torch.arange(7)[:, None] % 3 == torch.arange(7) % 3) | (torch.arange(7)[:, None] == 0)
MASKS = {
    "[N, N]": TOGETHER,
    "[1, N, N]": TOGETHER[None],
    "[1, 1, N, N]": TOGETHER[None, None],
    "[H, N, N]": TOGETHER.expand(2, 7, 7),
    "[N, N] of floats": TOGETHER.float().log(),
    "[1, N] of keys": TOGETHER[:1],
}
CAUSAL = torch.ones(7, 7).tril().bool()
SPELLINGS: dict[str, tuple[Callable[..., Tensor], Tensor | None]] = {
    "heads second": (heads_second, None),
    "heads second, causal": (functools.partial(heads_second, causal=True), CAUSAL),
    **{f"mask {name}": (functools.partial(heads_second, mask=mask), mask) for name, mask in MASKS.items()},
    "heads first": (heads_first, None),
    "heads first, fused": (heads_first_fused, None),
    "heads first, fused and causal": (functools.partial(heads_first_fused, causal=True), CAUSAL),
    "keys before queries": (keys_before_queries, None),
    "folded": (folded, None),
    "folded, mask [N, N]": (functools.partial(folded, mask=TOGETHER), TOGETHER),
    "folded, causal": (functools.partial(folded, causal=True), CAUSAL),
    "folded and written out": (folded_and_written_out, None),
    "without heads": (alone, None),
    "without heads, mask [N, N]": (functools.partial(alone, mask=TOGETHER), TOGETHER),
}


def paid(model: Spelled, x: Tensor, mask: Tensor | None) -> Tensor:
    """The attention ``[B, H, N, N]`` of a model in which every token is active."""
    q, k, _ = (own.transpose(1, 2) for own in model.qkv(x).unflatten(-1, (3, 2, 4)).unbind(2))
    scores = q @ k.transpose(2, 3) / 2
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else scores + mask
    return scores.softmax(-1)


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("spelling", SPELLINGS)
@torch.no_grad()
def test_the_signal_does_not_depend_on_where_samples_and_heads_stand(spelling: str, samples: int) -> None:
    torch.manual_seed(0)
    attend, mask = SPELLINGS[spelling]
    model, x = Spelled(attend).eval(), torch.randn(samples, 7, 8)
    active = torch.tensor([[0, 2, 5], [1, 3, 6], [2, 4, 5]])[:samples]
    queried = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])[:samples]
    weights = paid(model, x, mask).mean(1)
    expected = [own[positions[asked]].mean(0) for own, positions, asked in zip(weights, active, queried)]
    signal = received(model, [x], active, queried, sites=2 if "without" in spelling else 1)
    torch.testing.assert_close(signal, torch.stack(expected))


@torch.no_grad()
def test_copies_of_one_sample_are_observed_together() -> None:
    torch.manual_seed(0)
    model, x = Spelled(heads_second, copies=2).eval(), torch.randn(1, 7, 8)
    signal = received(model, [x], torch.tensor([[0, 2, 5]]), torch.tensor([[True, False, True]]), sites=1)
    torch.testing.assert_close(signal, paid(model, torch.cat([x, 2 * x]), None).mean((0, 1))[None, [0, 5]].mean(1))


class GlobalThenWindows(nn.Module):
    """Attention among all of twelve tokens, then in windows of four: a token is a place that every window has."""

    def __init__(self, columns: bool, masked: bool) -> None:
        super().__init__()
        self.columns, self.masked = columns, masked
        self.everywhere, self.inside = Spelled(self.attend), Spelled(heads_second)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return heads_second(q, k, v, seen() if self.masked else None)

    def forward(self, x: Tensor) -> Tensor:
        x = self.everywhere(x)
        if self.columns:
            x = x.unflatten(1, (4, 3)).transpose(1, 2).flatten(0, 1)
            return self.inside(x).unflatten(0, (-1, 3)).transpose(1, 2).flatten(1, 2)
        return self.inside(x.unflatten(1, (3, 4)).flatten(0, 1)).unflatten(0, (-1, 3)).flatten(1, 2)


def seen() -> Tensor:
    """Which of twelve keys each of twelve queries sees."""
    return torch.arange(144).view(12, 12) % 5 != 1


def by_place(x: Tensor, dim: int, columns: bool) -> Tensor:
    """A dimension of twelve tokens as one of places in a window and one of windows."""
    return x.unflatten(dim, (4, 3)) if columns else x.unflatten(dim, (3, 4)).transpose(dim, dim + 1)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_attention_to_a_token_that_stands_in_every_window_is_summed(columns: bool, masked: bool) -> None:
    torch.manual_seed(0)
    model, x = GlobalThenWindows(columns, masked).eval(), torch.randn(2, 12, 8)
    program = Program(model, "forward", [x])
    assert program.plan.axes.lengths == (4,)
    program = Hooked(model, [x], lambda hooks: hooks.attention(("everywhere",)))
    active, queried = torch.tensor([[0, 2, 3], [1, 2, 3]]), torch.tensor([[True, False, True], [False, True, True]])
    program.measure([x], [everything(4)])
    (signal,) = program.measure([x], [active], [queried])
    weights = paid(model.everywhere, x, seen() if masked else None)
    received = by_place(by_place(weights, 3, columns).sum(-1), 2, columns)
    for sample in range(2):
        asked = active[sample][queried[sample]]
        torch.testing.assert_close(signal[sample], received[sample][:, asked].mean((0, 1, 2)))


def summed_scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores that are summed over queries, which no row has alone."""
    weights = torch.einsum("bihd,bjhd->bhij", q / 2, k).cumsum(2).softmax(-1)
    return torch.einsum("bhij,bjhd->bihd", weights, v)


def test_scores_of_all_tokens_are_not_observed_and_the_reason_is_told() -> None:
    layers = nn.Sequential(Spelled(heads_second), Spelled(summed_scores), Spelled(heads_second))
    program = Program(layers.eval(), "forward", [torch.randn(2, 7, 8)])
    hooks = Hooks(program.split, program.plan)
    assert list(hooks.observable) == ["0", "2"]
    split, _ = insert_hooks(program.split, program.plan, [lambda hooks: hooks.attention("all")])
    assert split.unobservable == {"1": "its scores are computed of all tokens, not of active rows"}
    with pytest.raises(ArgumentError, match="attention of '1' cannot be observed: its scores are computed of all"):
        hooks.attention(("1",))
