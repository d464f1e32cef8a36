"""What a policy finds in the history of a session is what its signals say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import (
    ArgumentError,
    AttentionReceived,
    History,
    InputDrift,
    PolicyError,
    Refresh,
    RefreshPolicy,
    RowSignal,
    Signal,
    ValueDrift,
)
from marche_fx.api.optimization import optimization_of
from marche_fx.refresh.history import SMOOTHING
from tests.by_hand import ByHand, moved, same, spread
from tests.networks import FoldedAttention, Transformer

TOKENS, WIDTH, PATH = 40, 16, "blocks.0.attention"


class Recorder(RefreshPolicy):
    """Refreshes ``count`` tokens, others in every step, and notes what it sees of its signals before each."""

    def __init__(self, *signals: Signal, count: int = 8, exact_sites: int = 0, tolerance: float = 1e9) -> None:
        self.signals = signals
        self.count = count
        self.exact_sites = exact_sites
        self.tolerance = tolerance
        self.seen: list[tuple[list[Tensor | None], list[Tensor | None]]] = []
        """Before each step, for each signal, the latest and the smoothed."""

    def choose(self, history: History) -> Refresh:
        latest, smoothed = (
            [None if (found := read(signal)) is None else found.clone() for signal in self.signals]
            for read in (history.latest, history.smoothed)
        )
        self.seen.append((latest, smoothed))
        generator = torch.Generator().manual_seed(history.step)
        return Refresh(self.count, torch.rand(history.age.shape, generator=generator))

    def latest(self, step: int, signal: int = 0) -> Tensor | None:
        return self.seen[step][0][signal]

    def smoothed(self, step: int, signal: int = 0) -> Tensor | None:
        return self.seen[step][1][signal]


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(TOKENS, WIDTH, 2).eval()


def inputs(steps: int = 5, moves: float = 0.3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(2, TOKENS, WIDTH, generator=generator)]
    for _ in range(steps - 1):
        found.append(found[-1] + moves * torch.randn(found[0].shape, generator=generator))
    return found


@torch.no_grad()
def decode(model: nn.Module, policy: RefreshPolicy, xs: list[Tensor], reads: int = 3) -> list[Tensor]:
    """The active tokens ``[B, A]`` of each step of a session in which the first ``reads`` tokens are read."""
    optimized = marche_fx.transform(model, refresh=policy, compile=False)
    with marche_fx.decoding(optimized):
        for x in xs:
            optimized(x)[:, :reads].sum()
    session = optimization_of(optimized).last_session
    assert session is not None
    assert [record.active for record in session.records[1:]] == [16] * (len(xs) - 1)
    return [torch.stack([sample.nonzero()[:, 0] for sample in record.reasons]) for record in session.records]


def merged(before: Tensor, now: Tensor) -> Tensor:
    """The latest of each token: now where it was measured."""
    return torch.where(now.isnan(), before, now)


# -------------------------------------------------------------------------------------------- rows with cached ones


@torch.no_grad()
def test_value_drift_of_a_session_is_that_of_the_rows_recomputed(model: Transformer) -> None:
    xs, policy = inputs(), Recorder(ValueDrift(1), ValueDrift(2), ValueDrift("blocks.1.attention"))
    hand = ByHand(list(model.blocks), model.position)
    expected = [torch.zeros(2, TOKENS) for _ in policy.signals]
    for number, (x, active) in enumerate(zip(xs, decode(model, policy, xs))):
        if number >= 2:
            for signal, drift in enumerate(expected):
                latest = policy.latest(number, signal)
                assert latest is not None
                assert same(latest, drift)
        first, last = (spread(moved(own["v"], own["v before"]), active, TOKENS) for own in hand.step(x, active))
        if number:
            expected = [merged(own, now) for own, now in zip(expected, (first, (first + last) / 2, last))]


def test_the_first_step_measures_no_drift(model: Transformer) -> None:
    functions = [RowSignal(lambda now, before: now.mean(-1), PATH, tensor) for tensor in ("k", "v", "q", "output")]
    policy = Recorder(ValueDrift(), InputDrift(), AttentionReceived(1), *functions)
    decode(model, policy, inputs(3))
    known = [[latest is not None for latest in step] for step, _ in policy.seen]
    # Before the first step nothing is known but that no input has moved; after it what needs no cached row.
    assert known[0] == [False, True, False, False, False, False, False]
    assert known[1] == [False, True, True, False, False, True, True]
    assert known[2] == [True] * 7
    first = policy.latest(0, 1)
    assert first is not None
    assert not first.any()


@pytest.mark.parametrize("tensor", ["q", "k", "v", "output"])
@torch.no_grad()
def test_a_function_of_rows_is_a_signal(model: Transformer, tensor: str) -> None:
    def size(now: Tensor, before: Tensor | None) -> Tensor:
        return now.abs().amax(-1) if before is None else (now - before).abs().amax(-1)

    xs, policy = inputs(4), Recorder(RowSignal(size, "blocks.1.attention", tensor))
    hand = ByHand(list(model.blocks), model.position)
    expected = torch.zeros(2, TOKENS)
    for number, (x, active) in enumerate(zip(xs, decode(model, policy, xs))):
        if number >= 2:
            latest = policy.latest(number)
            assert latest is not None
            assert same(latest, expected)
        own = hand.step(x, active)[1]
        before = own.get(f"{tensor} before")
        if number or before is None:
            expected = merged(expected, spread(size(own[tensor], before), active, TOKENS))


# ---------------------------------------------------------------------------------------------------- attention


@torch.no_grad()
def test_attention_is_smoothed_over_the_steps_that_measured_it(model: Transformer) -> None:
    xs, reads = inputs(), 3
    policy = Recorder(AttentionReceived(1), AttentionReceived("all"))
    hand = ByHand(list(model.blocks), model.position)
    smooth: list[Tensor] = []
    for number, (x, active) in enumerate(zip(xs, decode(model, policy, xs, reads))):
        for signal, expected in enumerate(smooth):
            found = policy.smoothed(number, signal)
            assert found is not None
            assert same(found, expected)
        blocks = hand.step(x, active)
        first, last = (queried_attention(hand, number, own["q"], active, reads) for number, own in enumerate(blocks))
        now = [first, (first + last) / 2]
        smooth = [old + SMOOTHING * (new - old) for old, new in zip(smooth, now)] if smooth else now


def queried_attention(hand: ByHand, block: int, q: Tensor, active: Tensor, reads: int) -> Tensor:
    """The attention that the first ``reads`` tokens pay to every key of a block, one sample at a time."""
    found = torch.zeros(2, TOKENS)
    for sample in range(2):
        rows = q[sample][active[sample] < reads].unflatten(-1, (2, -1))
        keys = hand.keys[block][sample].unflatten(-1, (2, -1))
        scores = torch.einsum("qhd,khd->hqk", rows, keys) / (WIDTH // 2) ** 0.5
        found[sample] = scores.softmax(-1).mean((0, 1))
    return found


# -------------------------------------------------------------------------------------------------- input drift


@torch.no_grad()
def test_input_drift_is_known_of_every_token_before_its_step(model: Transformer) -> None:
    xs, policy = inputs(), Recorder(InputDrift())
    last = xs[0].clone()
    for number, (x, active) in enumerate(zip(xs, decode(model, policy, xs))):
        latest = policy.latest(number)
        assert latest is not None
        assert same(latest, moved(x, last)), "since each token was last computed"
        at = torch.arange(2)[:, None], active
        last[at] = x[at]


@torch.no_grad()
def test_with_exact_sites_the_input_is_what_the_first_layers_give_to_the_others(model: Transformer) -> None:
    xs, other = inputs(), inputs()
    for number in range(1, len(xs)):
        # One token moves, and all the others see it in the first attention.
        xs[number] = xs[0].clone()
        xs[number][:, 5] = other[number][:, 5]
    policy = Recorder(InputDrift(), exact_sites=1)
    block: Any = model.blocks[0]
    placed = [x + model.position for x in xs]
    attended = [attention_of(block, x) for x in placed]
    last = [placed[0].clone(), attended[0].clone()]
    for number, (x, y, active) in enumerate(zip(placed, attended, decode(model, policy, xs))):
        latest = policy.latest(number)
        assert latest is not None
        assert same(latest, torch.maximum(moved(x, last[0]), moved(y, last[1])))
        # Attention carries the move to every token.
        assert number == 0 or (latest > 1e-4).any(0).sum() > TOKENS // 2
        at = torch.arange(2)[:, None], active
        for old, new in zip(last, (x, y)):
            old[at] = new[at]


def attention_of(block: Any, rows: Tensor) -> Tensor:
    """The attention of a block over all tokens, before its last projection."""
    q, k, v = (
        own.unflatten(-1, (2, -1)).transpose(1, 2) for own in block.attention.qkv(block.norm1(rows)).chunk(3, -1)
    )
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "signal",
    [
        ValueDrift("blocks.2.attention"),
        AttentionReceived((PATH, "blocks.2.attention")),
        RowSignal(lambda now, before: now.mean(-1), "blocks.2.attention"),
    ],
)
def test_a_site_that_does_not_exist_is_refused_at_the_first_call(model: Transformer, signal: Signal) -> None:
    optimized = marche_fx.transform(model, refresh=Recorder(signal), compile=False)
    with (
        torch.no_grad(),
        pytest.raises(ArgumentError, match=rf"'blocks\.2\.attention' .* there are {PATH}, blocks\.1\.attention$"),
    ):
        optimized(inputs(1)[0])


def test_a_signal_that_nobody_measures_is_refused(model: Transformer) -> None:
    class Temperature(Signal):
        pass

    optimized = marche_fx.transform(model, refresh=Recorder(Temperature()), compile=False)
    with torch.no_grad(), pytest.raises(ArgumentError, match=r"nobody measures .*Temperature.*use AttentionReceived"):
        optimized(inputs(1)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValueDrift(0), "sites must be"),
        (lambda: AttentionReceived(()), "sites must be"),
        (lambda: RowSignal(lambda now, before: now.mean(-1), PATH, "z"), "tensor must be"),
    ],
)
def test_a_signal_out_of_range_is_refused(make: Callable[[], Signal], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_function_that_gives_no_number_a_token_is_refused(model: Transformer) -> None:
    policy = Recorder(RowSignal(lambda now, before: now, PATH))
    with pytest.raises(PolicyError, match=r"one number a row, \(2, 40\), got \(2, 40, 16\)"):
        decode(model, policy, inputs(1))


class Unfolded(FoldedAttention):
    """The same attention on ``[B, H, N, d]``."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).flatten(2))


def test_samples_and_heads_that_share_a_dimension_are_told_apart() -> None:
    latest = []
    for attention in (FoldedAttention, Unfolded):
        torch.manual_seed(0)
        policy = Recorder(AttentionReceived("all"))
        decode(Transformer(TOKENS, WIDTH, 2, attention=attention).eval(), policy, inputs(3))
        latest.append(policy.latest(2))
    folded, unfolded = latest
    assert folded is not None
    assert unfolded is not None
    torch.testing.assert_close(folded, unfolded)
