"""Signals for refresh policies."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from marche_fx import ArgumentError, PolicyError, ops
from marche_fx.passes.rewrite.hooks import Hooks, insert_hooks
from tests.graphs import graph_text
from tests.networks import (
    BiasedAttention,
    Block,
    CausalAttention,
    EinsumAttention,
    FusedAttention,
    Mlp,
    Transformer,
)
from tests.passes.rewrite.test_streams import IMAGE, TEXT, WIDTH, JointAttention, sliced
from tests.program import Program


class SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_the_attention_that_keys_received_becomes_an_output() -> None:
    program = Program(SelfAttention(4).eval(), "forward", [torch.zeros(2, 5, 4)])
    before = graph_text(program.split.incremental.module.graph)
    hooked = insert_hooks(program.split, program.plan, [lambda hooks: hooks.attention(1)])[0]
    after = graph_text(hooked.incremental.module.graph)
    (attention,) = (line for line in before.splitlines() if "scaled_dot_product_attention(" in line)
    received = f"attention_received(squeeze, update_cache, samples, rows, queried, {1 / math.sqrt(2)}, None, 0, 1)"
    assert before.endswith("\nreturn ")
    assert after == (
        before.removesuffix("return ").replace(attention, f"{attention}\nattention_received = {received}")
        + "div_scalar = aten.div(attention_received, 1)\nreturn div_scalar"
    )


class Hooked(Program):
    """A rewritten model that measures ``signals``."""

    def __init__(self, model: nn.Module, args: list[Tensor], *signals: Callable[[Hooks], fx.Node | None]) -> None:
        super().__init__(model, "forward", args)
        self.split, self.found = insert_hooks(self.split, self.plan, signals)

    def measure(self, args: list[Tensor], active: list[Tensor], queried: list[Tensor] | None = None) -> list[Tensor]:
        """The signals of a step in which the tokens ``active [B, A]`` of each stream are recomputed."""
        return list(self.run(self.split.incremental.module, self.values(args), active, self.caches, queried))


def everything(tokens: int, samples: int = 2) -> Tensor:
    return torch.arange(tokens).expand(samples, tokens)


def received(model: nn.Module, args: list[Tensor], active: Tensor, queried: Tensor, sites: int) -> Tensor:
    """The attention signal after a step in full and one of ``active`` tokens."""
    program = Hooked(model, args, lambda hooks: hooks.attention(sites))
    assert len(Hooks(program.split, program.plan).observable) >= sites
    program.measure(args, [everything(args[0].shape[1], len(active))])
    (signal,) = program.measure(args, [active], [queried])
    return signal


def by_hand(model: Transformer, x: Tensor, active: Tensor, queried: Tensor, *, causal: bool = False) -> Tensor:
    """The same from the first block's own projections, one query at a time."""
    block: Any = model.blocks[0]
    attention = block.attention
    rows = block.norm1(x + model.position)
    found = torch.zeros(x.shape[:2])
    for sample in range(len(x)):
        q, k = (t.view(x.shape[1], 2, -1) for t in attention.qkv(rows[sample]).chunk(3, -1)[:2])
        weights = []
        for position in active[sample][queried[sample]].tolist():
            for head in range(2):
                scores = k[:, head] @ q[position, head] / math.sqrt(q.shape[-1])
                if causal:
                    scores[position + 1 :] = float("-inf")
                weights.append(scores.softmax(-1))
        found[sample] = torch.stack(weights).mean(0)
    return found


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_the_signal_is_the_mean_attention_of_the_queried_tokens(causal: bool) -> None:
    torch.manual_seed(0)
    model = Transformer(7, 8, 2, attention=CausalAttention if causal else FusedAttention).eval()
    x = torch.randn(3, 7, 8)
    active = torch.tensor([[0, 2, 5], [1, 3, 6], [2, 4, 5]])
    queried = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    signal = received(model, [x], active, queried, sites=1)
    assert torch.allclose(signal, by_hand(model, x, active, queried, causal=causal), atol=1e-6)
    assert torch.allclose(signal.sum(1), torch.ones(3))


@torch.no_grad()
def test_written_out_attention_gives_its_own_weights() -> None:
    torch.manual_seed(0)
    model = Transformer(7, 8, 2, attention=BiasedAttention).eval()
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[:, 4] = False
    active, queried = torch.tensor([[0, 2], [1, 3]]), torch.ones(2, 2, dtype=torch.bool)
    signal = received(model, [torch.randn(2, 7, 8), mask], active, queried, sites=2)
    assert torch.allclose(signal.sum(1), torch.ones(2))
    assert not signal[:, 4].any(), "nobody attends to what is masked"


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


def test_where_nobody_is_queried_all_active_tokens_count() -> None:
    attention = torch.rand(2, 3, 4, 6).softmax(-1)
    none = torch.zeros(2, 4, dtype=torch.bool)
    assert torch.allclose(ops.mean_over_queried(attention, none), attention.mean((1, 2)))


def test_of_a_sample_of_which_nobody_is_queried_nothing_is_measured_while_another_has_some() -> None:
    attention = torch.rand(2, 3, 4, 6).softmax(-1)
    queried = torch.tensor([[False, True, True, False], [False] * 4])
    received = ops.mean_over_queried(attention, queried)
    assert torch.allclose(received[0], attention[0, :, 1:3].mean((0, 1)))
    assert received[1].isnan().all()


def test_einsum_attention_is_not_mistaken() -> None:
    program = Program(Transformer(7, 8, 2, attention=EinsumAttention).eval(), "forward", [torch.randn(2, 7, 8)])
    for site in Hooks(program.split, program.plan).observable.values():
        assert site.weights is not None
        assert site.weights.meta["val"].shape == (2, 2, 7, 7)


# ------------------------------------------------------------------------------------------------ rows of a site


class ByHand:
    """A model's blocks with `FusedAttention`, run for active tokens from their own projections.

    Args:
        blocks: in the order in which they are called; one that is called twice is there twice.
        position: added to the input.
    """

    def __init__(self, blocks: list[Any], position: Tensor | None = None, heads: int = 2) -> None:
        self.blocks = blocks
        self.position = 0 if position is None else position
        self.heads = heads
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def step(self, x: Tensor, active: Tensor) -> list[dict[str, Tensor]]:
        """For each block, of the active tokens, ``[B, A, D]``: q, k, v, the output of attention, and k and v before.

        ``received`` is the attention that the active tokens pay to every key, ``[B, N]``.
        """
        at = torch.arange(len(x))[:, None], active
        rows, found = (x + self.position)[at], []
        for number, block in enumerate(self.blocks):
            q, k, v = block.attention.qkv(block.norm1(rows)).chunk(3, -1)
            if len(self.keys) == number:
                # Never computed before.
                for cache in (self.keys, self.values):
                    cache.append(k.new_zeros(*x.shape[:2], k.shape[-1]))
            keys, values = self.keys[number], self.values[number]
            before = {"k before": keys[at], "v before": values[at]}
            keys[at], values[at] = k, v
            heads = [own.unflatten(-1, (self.heads, -1)).transpose(1, 2) for own in (q, keys, values)]
            weights = (heads[0] @ heads[1].transpose(2, 3) / math.sqrt(heads[0].shape[-1])).softmax(-1)
            output = (weights @ heads[2]).transpose(1, 2).flatten(2)
            found.append({"q": q, "k": k, "v": v, "output": output, "received": weights.mean((1, 2)), **before})
            rows = rows + block.attention.proj(output)
            rows = rows + block.mlp(block.norm2(rows))
        return found


def moved(now: Tensor, before: Tensor) -> Tensor:
    """``|now - before| / |now|`` of rows, ``[B, A]``."""
    return ((now - before).square().sum(-1) / now.square().sum(-1)).sqrt()


def spread(rows: Tensor, active: Tensor, tokens: int, start: int = 0) -> Tensor:
    """``[B, A]`` of the active tokens among all, one at a time."""
    found = torch.full((len(rows), tokens), math.nan)
    for sample in range(len(rows)):
        for number, token in enumerate(active[sample].tolist()):
            found[sample, start + token] = rows[sample, number]
    return found


def same(own: Tensor, other: Tensor) -> bool:
    """Whether two signals agree, also where neither was measured."""
    return torch.allclose(own, other, rtol=1e-4, atol=1e-6, equal_nan=True)


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


# ----------------------------------------------------------------------------------------------- several streams


class JointAndAlone(nn.Module):
    """Text and image attend to each other, then the image alone, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.joint, self.alone = SelfAttention(WIDTH), SelfAttention(WIDTH)

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(2):
            both = self.joint(torch.cat([text, image], 1))
            text, image = text + both[:, :TEXT], self.alone(image + both[:, TEXT:])
        return text, image


def projected(module: SelfAttention, rows: Tensor) -> tuple[Tensor, ...]:
    """q, k and v of rows, ``[B, A, D]`` each."""
    return module.qkv(rows).chunk(3, -1)


@pytest.mark.parametrize(("path", "start", "tokens"), [("joint", 0, TEXT + IMAGE), ("alone", TEXT, IMAGE)])
@torch.no_grad()
def test_signals_of_a_stream_are_of_its_own_tokens(path: str, start: int, tokens: int) -> None:
    torch.manual_seed(0)
    model = JointAndAlone().eval()
    before = [torch.randn(2, count, WIDTH) for count in (TEXT, IMAGE)]
    now = [x + 0.3 * torch.randn(x.shape) for x in before]
    program = Hooked(
        model,
        before,
        lambda hooks: hooks.value_drift(path),
        lambda hooks: hooks.attention(path),
        lambda hooks: hooks.rows(path, "k", lambda now, before: now.mean(-1)),
    )
    assert program.plan.axes.lengths == (TEXT, IMAGE)
    program.measure(before, [everything(TEXT), everything(IMAGE)])
    text, image = torch.tensor([[2], [0]]), torch.tensor([[0, 3], [4, 1]])
    drift, attention, keys = program.measure(now, [text, image])

    # The joint attention of the tokens that are recomputed, from the caches of both streams.
    both, at = torch.cat([text, TEXT + image], 1), torch.arange(2)[:, None]
    stale, rows = torch.cat(before, 1), torch.cat(now, 1)[at, both]
    mixed = stale.clone()
    mixed[at, both] = rows
    active, old, new = both, stale, rows
    if path == "alone":
        # What the image alone attends to is what the joint attention made of its tokens.
        old = (stale + model.joint(stale))[:, TEXT:]
        active, new = image, (mixed + model.joint(mixed))[at, TEXT + image]
        mixed = old.clone()
        mixed[at, active] = new
    module: Any = getattr(model, path)
    _, k, v = projected(module, new)
    assert same(drift, spread(moved(v, projected(module, old)[2][at, active]), active, TEXT + IMAGE, start))
    assert same(keys, spread(k.mean(-1), active, TEXT + IMAGE, start))
    q, all_keys = (
        own.unflatten(-1, (2, -1)).transpose(1, 2) for own in (projected(module, new)[0], projected(module, mixed)[1])
    )
    weights = (q @ all_keys.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1).mean((1, 2))
    assert weights.shape == (2, tokens)
    assert same(attention[:, start : start + tokens], weights)
    assert not attention[:, :start].any(), "nobody attends to tokens of the other stream"


@torch.no_grad()
def test_both_streams_of_a_joint_attention_are_measured() -> None:
    torch.manual_seed(0)
    model = JointAttention(sliced).eval()
    before = [torch.randn(2, count, WIDTH) for count in (TEXT, IMAGE)]
    now = [x + 0.3 * torch.randn(x.shape) for x in before]
    program = Hooked(model, before, lambda hooks: hooks.value_drift(1))
    program.measure(before, [everything(TEXT), everything(IMAGE)])
    text, image, at = torch.tensor([[1], [2]]), torch.tensor([[4, 0], [2, 3]]), torch.arange(2)[:, None]
    (signal,) = program.measure(now, [text, image])
    drifts = []
    for own, active, (old, new) in zip((model.text, model.image), (text, image), zip(before, now)):
        old_values, new_values = (own(x)[at, active].chunk(3, -1)[2] for x in (old, new))
        drifts.append(moved(new_values, old_values))
    assert same(signal, spread(torch.cat(drifts, 1), torch.cat([text, TEXT + image], 1), TEXT + IMAGE))
