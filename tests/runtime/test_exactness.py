"""Rows that nothing new can reach are known to be exact, and no policy spends its budget on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import History, RandomRefresh, Refresh, RefreshPolicy, StalenessRefresh
from marche_fx.lazy.tensor import resolved
from tests.networks import CausalAttention, FusedAttention, SinkAttention, Transformer
from tests.sessions import positions

N, D = 12, 8


class MaskedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (own.unflatten(-1, (2, -1)).transpose(1, 2) for own in self.qkv(x).chunk(3, -1))
        return x + self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class Masked(nn.Module):
    """Layers whose attention a mask rules, given by the loop."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MaskedAttention() for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return x


def block_causal(length: int, tokens: int = N) -> Tensor:
    """Bool ``[N, N]``: a token sees the tokens of its block and of those before."""
    block = torch.arange(tokens) // length
    return block[:, None] >= block


def additive(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, torch.finfo(torch.float64).min)


class Told(RefreshPolicy):
    """Refreshes the tokens ``turns[step]`` of each sample, and notes which rows are said to be exact."""

    def __init__(self, turns: list[Tensor], tolerance: float = 0.1) -> None:
        self.turns, self.tolerance = turns, tolerance
        self.told: list[Tensor | None] = []

    def choose(self, history: History) -> Refresh:
        if history.step == 0:
            return Refresh(history.tokens)
        exact = history.exact
        self.told.append(None if exact is None else exact.clone())
        turn = self.turns[(history.step - 1) % len(self.turns)]
        return Refresh(len(turn), torch.zeros(history.age.shape).index_fill(1, turn, 1.0))


def test_a_finished_block_is_exact_for_ever_and_costs_nothing() -> None:
    torch.manual_seed(0)
    model, mask = Masked().double().eval(), block_causal(4)
    policy = StalenessRefresh(2 / N, warmup=1)
    optimized = marche_fx.transform(model, refresh=policy, compile=False)
    x = torch.randn(1, N, D, dtype=torch.float64)
    opened = marche_fx.decoding(optimized)
    with torch.no_grad(), opened:
        optimized(x, mask)[:, -1:].sum()
        for _ in range(4):
            x = x.clone()
            # The last block is being decoded.
            x[:, -2] = torch.randn(1, D)
            z = optimized(x, mask)
            resolved(z[:, -2:])
            assert opened.session is not None
            chosen = positions(opened.session.records[-1])[0].tolist()
            assert {8, 9, 10, 11} <= set(chosen), "the two that are refreshed are of the last block"
            torch.testing.assert_close(resolved(z[:, -4:]), model(x, mask)[:, -4:])


masks = st.sampled_from(["blocks", "window", "sparse", "none"])


def made(kind: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(N)
    if kind == "blocks":
        return block_causal(3)
    if kind == "window":
        return (place[:, None] - place).abs() <= 1
    if kind == "sparse":
        return (torch.rand(N, N, generator=generator) < 0.15) | torch.eye(N, dtype=torch.bool)
    return torch.ones(N, N, dtype=torch.bool)


@settings(max_examples=30, deadline=None)
@given(
    kind=masks,
    seed=st.integers(0, 999),
    samples=st.integers(1, 2),
    form=st.sampled_from(["[N, N]", "[1, N, N]", "[B, 1, N, N]", "[H, N, N]"]),
    is_additive=st.booleans(),
    moves=st.booleans(),
    depth=st.integers(1, 3),
)
@torch.no_grad()
def test_what_is_said_to_be_exact_is_what_the_original_gives(
    kind: str, seed: int, samples: int, form: str, is_additive: bool, moves: bool, depth: int
) -> None:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Masked(depth).double().eval()
    turns = [torch.randperm(N, generator=generator)[: 1 + seed % 3] for _ in range(5)]
    policy = Told(turns, tolerance=0.1)
    optimized = marche_fx.transform(model, refresh=policy, compile=False, verify=False)
    x = torch.randn(samples, N, D, generator=generator, dtype=torch.float64)
    mask = made(kind, seed)
    opened = marche_fx.decoding(optimized)
    with opened:
        for step in range(6):
            if step:
                x = x.clone()
                token = int(torch.randint(N, (), generator=generator))
                # One token is another, and one moves by less than the tolerance.
                x[0, token] = torch.randn(D, generator=generator).double()
                x[-1, (token + 3) % N] *= 1.01
            if moves and step == 3:
                mask = made("sparse", seed + 1)
            given = additive(mask) if is_additive else mask
            given = {
                "[N, N]": given,
                "[1, N, N]": given[None],
                "[B, 1, N, N]": given.expand(samples, 1, N, N),
                "[H, N, N]": given.expand(2, N, N),
            }[form]
            # A whole read has what is not computed as it is.
            values, expected = resolved(optimized(x, given)), model(x, given)
            said = policy.told[-1] if step else None
            if said is not None:
                torch.testing.assert_close(values[said], expected[said])
            assert opened.session is not None
            (stream,) = opened.session.streams
            (state,) = stream.states.values()
            if state.exactness is not None and state.exactness.is_of_use:
                left = state.exactness.rows
                torch.testing.assert_close(values[left], expected[left])


@torch.no_grad()
def told(model: nn.Module, *more: Tensor, samples: int = 1) -> list[Tensor | None]:
    """What a policy is told in two steps after the first, in each of which token 5 is another."""
    policy = Told([torch.tensor([0])])
    optimized = marche_fx.transform(model.double().eval(), refresh=policy, compile=False)
    x = torch.randn(samples, N, D, dtype=torch.float64)
    with marche_fx.decoding(optimized):
        for _ in range(3):
            x = x.clone()
            x[:, 5] = torch.randn(samples, D).double()
            resolved(optimized(x, *more)[:, 5:6])
    return policy.told


def test_before_a_causal_change_everything_is_exact() -> None:
    found = told(Transformer(N, D, 2, depth=2, attention=CausalAttention))
    # Tokens behind the one that moved are stale, and stay so when it moves again.
    assert [own is not None and own[0].tolist() for own in found] == [[True] * 5 + [False] * 7] * 2


def test_a_window_hides_what_is_further_than_its_layers_reach() -> None:
    found = told(Masked(2), made("window", 0))
    near = [abs(place - 5) <= 2 for place in range(N)]
    assert found[0] is not None
    assert (~found[0])[0].tolist() == near


@pytest.mark.parametrize(
    "model",
    [
        lambda: Transformer(N, D, 2, depth=2, attention=FusedAttention),
        lambda: Transformer(N, D, 2, depth=2, attention=SinkAttention),
    ],
)
def test_where_every_token_sees_every_other_or_nobody_knows_nothing_is_exact(model: Callable[[], nn.Module]) -> None:
    assert told(model()) == [None, None]


class WithSink(MaskedAttention):
    """Attention some of which goes to no token, beside attention that a mask rules."""

    def __init__(self) -> None:
        super().__init__()
        self.sink = nn.Parameter(torch.randn(1, 2, 1, D // 2))
        self.masked = MaskedAttention()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (own.unflatten(-1, (2, -1)).transpose(1, 2) for own in self.qkv(x).chunk(3, -1))
        k, v = (torch.cat([self.sink.expand(len(x), -1, -1, -1), own], 2) for own in (k, v))
        return self.masked(x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)), mask)


def test_keys_that_are_joined_to_others_hide_nothing() -> None:
    assert told(WithSink(), block_causal(4)) == [None, None]


def test_a_mask_that_hides_nothing_is_of_no_use() -> None:
    assert told(Masked(), torch.ones(N, N, dtype=torch.bool)) == [None, None]


@torch.no_grad()
def test_a_policy_that_never_asks_makes_nothing_exact_of_steps_that_nobody_followed() -> None:
    asked: list[int] = []

    class Seldom(RandomRefresh):
        def choose(self, history: History) -> Refresh:
            if history.step == 2:
                exact = history.exact
                assert exact is not None
                asked.append(int(exact.sum()))
            return Refresh(history.tokens if history.step == 0 else 0, history.age)

    optimized = marche_fx.transform(Masked().double().eval(), refresh=Seldom(), compile=False)
    x, mask = torch.randn(1, N, D, dtype=torch.float64), block_causal(4)
    with marche_fx.decoding(optimized):
        for step in range(3):
            x = x.clone()
            x[:, 5 + step] = 0.0
            resolved(optimized(x, mask)[:, :1])
    assert asked == [0]
