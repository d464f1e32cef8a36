"""`flex_attention` is captured as the attention that its rules make it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

import marche_fx
from marche_fx.errors import ArgumentError
from marche_fx.passes.analysis.attention import find_attention_sites
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.flex import flex_attention_written, written
from tests.around import active
from tests.graphs import capture_function, graph_text
from tests.passes.capture.test_capture import run

TOKENS, HEADS = 32, 4
BIAS = torch.randn(HEADS, 2 * TOKENS, generator=torch.Generator().manual_seed(0))
SHOWN = torch.arange(TOKENS) < torch.tensor([[TOKENS], [TOKENS - 5]])


def by_blocks(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return q // 8 >= k // 8


def shown(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return SHOWN[b, k]


def none_of_some(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q >= 4) & (k != 2)


def by_distance(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return score + BIAS[h, q - k + TOKENS]


def soft_cap(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return 5 * torch.tanh(score / 5)


def mask_of(rule: Any, tokens: int = TOKENS, samples: int | None = None) -> BlockMask:
    return create_block_mask(rule, samples, None, tokens, tokens, device="cpu")


class Flexible(nn.Module):
    """``x [B, N, C] -> [B, N, C]``, of whose queries some share keys."""

    def __init__(self, attend: Callable[..., Any] = flex_attention, groups: int = 1, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attend, self.groups, self.options = attend, groups, options
        self.qkv, self.up, self.down = nn.Linear(16, 48), nn.Linear(16, 64), nn.Linear(64, 16)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (own.unflatten(-1, (HEADS, -1)).transpose(1, 2) for own in self.qkv(x).chunk(3, -1))
        k, v = (own[:, :: self.groups] for own in (k, v))
        y = self.attend(q, k, v, enable_gqa=self.groups > 1, **self.options)
        # No copy, as the result is laid out as the queries are.
        x = x + y.transpose(1, 2).view(x.shape)
        return x + self.down(self.up(x).relu())


KINDS: dict[str, Callable[[], Flexible]] = {
    "plain": Flexible,
    "blocks": lambda: Flexible(block_mask=mask_of(by_blocks)),
    "a mask for each sample": lambda: Flexible(block_mask=mask_of(shown, samples=2)),
    "queries that read nothing": lambda: Flexible(block_mask=mask_of(none_of_some)),
    "a bias": lambda: Flexible(score_mod=by_distance),
    "a soft cap under a mask": lambda: Flexible(score_mod=soft_cap, block_mask=mask_of(none_of_some)),
    "grouped queries": lambda: Flexible(groups=2, block_mask=mask_of(by_blocks)),
    "grouped queries and a bias": lambda: Flexible(groups=2, score_mod=by_distance),
}


def test_a_rule_becomes_a_mask_of_all_keys() -> None:
    q = torch.randn(1, 1, 8, 4)
    mask = mask_of(lambda b, h, q, k: q >= k, tokens=8)
    captured = capture_function(lambda q: flex_attention(q, q, q, block_mask=mask), q)
    assert graph_text(captured.graph_module.graph) == (
        """\
arange_2 = aten.arange(0, 8, layout=torch.strided, device=cpu)
arange_3 = aten.arange(0, 8, layout=torch.strided, device=cpu)
view = aten.view(arange_2, [8, 1])
ge = aten.ge(view, arange_3)
expand = aten.expand(ge, [1, 8, 8])
expand_2 = aten.expand(expand, [1, 1, 8, 8])
scaled_dot_product_attention = aten.scaled_dot_product_attention(leaves_0, leaves_0, leaves_0, expand_2, scale=0.5)
return scaled_dot_product_attention"""
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_attention_and_gives_what_it_gave(kind: str) -> None:
    model, x = KINDS[kind](), torch.randn(2, TOKENS, 16)
    captured = capture(model, "forward", (x,))
    assert len(find_attention_sites(captured.graph_module.graph)) == 1
    (result,) = run(captured, model, x)
    torch.testing.assert_close(result, model(x))


@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_are_computed(kind: str) -> None:
    model = KINDS[kind]()
    optimized, x = marche_fx.transform(model, compile=False), torch.randn(2, TOKENS, 16)
    with marche_fx.decoding(optimized):
        for row in range(8):
            x[:, row] += 1
            optimized(x)[:, row].clone()
    assert active(optimized)[-1] <= 8


@pytest.mark.filterwarnings("error")
def test_it_is_captured_where_it_is_compiled_as_a_whole() -> None:
    compiled = torch.compile(flex_attention, fullgraph=True, backend="eager")
    model = Flexible(compiled, block_mask=mask_of(by_blocks))
    x = torch.randn(2, TOKENS, 16)
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        torch.testing.assert_close(optimized(x).clone(), model(x))


def test_a_mask_that_a_step_makes_of_its_arguments() -> None:
    class Shown(Flexible):
        def forward(self, x: Tensor) -> Tensor:
            kept = x[..., 0] > 0
            self.options = {"block_mask": mask_of(lambda b, h, q, k: kept[b, k] | (q == k), samples=2)}
            return super().forward(x)

    model, x = Shown(), torch.randn(2, TOKENS, 16)
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        for _ in range(3):
            torch.testing.assert_close(optimized(x).clone(), model(x))
            x[:, 3] *= -1


def test_a_mask_that_is_passed_is_told_where_it_may_be() -> None:
    class Passed(Flexible):
        def forward(self, x: Tensor, mask: BlockMask | None = None) -> Tensor:
            self.options = {} if mask is None else {"block_mask": mask}
            return super().forward(x)

    with pytest.raises(ArgumentError, match=r"argument 'mask' of forward holds a BlockMask .* keep it as an attribute"):
        marche_fx.transform(Passed(), compile=False)(torch.randn(2, TOKENS, 16), mask=mask_of(by_blocks))


def test_a_mask_that_is_kept_as_an_attribute_may_be_another_in_the_next_session() -> None:
    model, x = Flexible(block_mask=mask_of(by_blocks)), torch.randn(2, TOKENS, 16)
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    for mask in (mask_of(by_blocks), mask_of(shown, samples=2), mask_of(none_of_some)):
        model.options["block_mask"] = mask
        with marche_fx.decoding(optimized):
            torch.testing.assert_close(optimized(x).clone(), model(x))


def test_what_is_asked_for_beside_the_result() -> None:
    q = torch.randn(1, 2, 8, 4)
    scores = q @ q.transpose(-1, -2) * 0.5
    call = (q, q, q, flex._identity, (flex.noop_mask,), 0.5)
    result, sums, highest = written(*call, {"OUTPUT_LOGSUMEXP": True, "OUTPUT_MAX": True})
    torch.testing.assert_close(result, scores.softmax(-1) @ q)
    torch.testing.assert_close(sums, scores.logsumexp(-1) / torch.tensor(2.0).log())
    torch.testing.assert_close(highest, scores.amax(-1) / torch.tensor(2.0).log())


def test_other_threads_call_flex_attention_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(flex, "flex_attention_hop", lambda *args: called.append(threading.get_ident()))
    q = torch.randn(1, 1, 8, 4)
    call: tuple[Any, ...] = (q, q, q, flex._identity, (flex.noop_mask,), 1.0, {})
    with flex_attention_written():
        other = threading.Thread(target=lambda: flex.flex_attention_hop(*call))
        other.start()
        other.join()
        flex.flex_attention_hop(*call)
    assert called == [other.ident]
