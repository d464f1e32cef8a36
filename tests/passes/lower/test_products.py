"""Products with weights are the same by oneDNN as by `aten.linear`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx.passes.lower import products
from marche_fx.passes.lower.lower import lower, reading_written_caches
from marche_fx.passes.lower.products import use_onednn
from tests.networks import Transformer
from tests.program import Program

aten = torch.ops.aten
marche_linear = torch.ops.marche_fx.linear.default
packed_linear = torch.ops.marche_fx.packed_linear.default


def large() -> tuple[Tensor, Tensor]:
    return torch.randn(100, 256), torch.randn(1024, 256)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of what goes to oneDNN."""
    found: list[torch.Size] = []

    def counted(x: Tensor, *others: object) -> Tensor:
        found.append(x.shape)
        return onednn(x, *others)

    onednn = products.onednn
    monkeypatch.setattr(products, "onednn", counted)
    monkeypatch.setattr(products, "is_faster", lambda: True)
    return found


@pytest.mark.parametrize("product", [marche_linear, packed_linear])
@given(
    rows=st.lists(st.integers(0, 9), max_size=3),
    inner=st.sampled_from([1, 7, 64, 300]),
    outer=st.sampled_from([1, 9, 1024, 3000]),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    turned=st.booleans(),
)
@torch.no_grad()
def test_a_product_equals_the_original_one(
    product: Any, rows: list[int], inner: int, outer: int, bias: bool, dtype: torch.dtype, turned: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(*rows, inner, dtype=dtype)
    x = x.transpose(0, -2) if turned and rows else x
    weight = torch.randn(outer, inner, dtype=dtype) if not turned else torch.randn(inner, outer, dtype=dtype).T
    added = torch.randn(outer, dtype=dtype) if bias else None
    expected = F.linear(x, weight, added)
    found = product(x, weight, added)
    assert found.dtype is dtype
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4 if dtype is not torch.bfloat16 else 2e-2)
    shape = product(*(None if own is None else own.to("meta") for own in (x, weight, added)))
    assert shape.shape == expected.shape
    assert shape.dtype is dtype


def test_large_weights_in_float32_and_no_others_go_to_onednn(calls: list[torch.Size]) -> None:
    x, weight = large()
    torch.ops.marche_fx.linear(x[:1], weight)
    torch.ops.marche_fx.linear(x, weight)
    torch.ops.marche_fx.linear(x, weight[1:])
    torch.ops.marche_fx.linear(x.double(), weight.double())
    assert calls == [(1, 256), (100, 256)]


@pytest.mark.parametrize(
    ("capability", "threads", "is_faster"),
    [("AVX512", 1, True), ("AVX512", 2, True), ("AVX2", 2, True), ("AVX2", 1, False), ("DEFAULT", 1, False)],
)
def test_one_thread_without_avx512_multiplies_as_the_original(
    capability: str, threads: int, is_faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(products, "onednn", lambda x, *others: calls.append(x.shape))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, weight = large()
    found = products.linear(x, weight)
    assert bool(calls) == is_faster
    assert is_faster or torch.equal(found, F.linear(x, weight))


@torch.no_grad()
def test_products_with_small_weights_stay_the_original_ones() -> None:
    program = Program(Transformer(9, 8, 2, depth=1).eval(), "forward", [torch.randn(2, 9, 8)])
    graph = reading_written_caches(program.split.incremental.module.graph)
    use_onednn(graph)
    assert not graph.find_nodes(op="call_function", target=marche_linear)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("enabled", [True, False])
def test_products_with_float32_weights_are_replaced_unless_onednn_is_forbidden(
    dtype: torch.dtype, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Transformer(9, 8, 2, depth=1).to(dtype).eval()
    program = Program(model, "forward", [torch.randn(2, 9, 8, dtype=dtype)])
    graph = reading_written_caches(program.split.incremental.module.graph)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
    monkeypatch.setattr(products, "SMALL", 0)
    use_onednn(graph)
    expected = torch.ops.marche_fx.linear if enabled and dtype is torch.float32 else aten.linear
    found = {node.target for node in graph.nodes if node.target in (aten.linear.default, marche_linear)}
    assert found == {expected.default}


@torch.no_grad()
def test_a_compiled_step_that_was_cast_still_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SMALL", 0)
    model = Transformer(9, 8, 2, depth=1).eval()
    program = Program(model, "forward", [torch.randn(2, 9, 8)])
    compiled = lower(program.split, compile=True)
    active = torch.stack([torch.randperm(9)[:4] for _ in range(2)])
    x = torch.randn(2, 9, 8)
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        caches = [[torch.zeros_like(cache, dtype=dtype) for cache in program.caches] for _ in range(2)]
        for run, own in ((compiled, caches[0]), (program.split.incremental.module, caches[1])):
            program.run(run, program.values([x.to(dtype)]), [active], own)
        for a, b in zip(*caches, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_products_in_lower_precision_stay_the_original_ones(calls: list[torch.Size]) -> None:
    x, weight = large()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = torch.ops.marche_fx.linear(x, weight)
        assert torch.equal(found, F.linear(x, weight))
    assert found.dtype is torch.bfloat16
    assert calls == []


class ReadsContext(nn.Module):
    """Attention among tokens, then to keys and values made of a context ``[B, M, D]``, which no token changes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.context = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + F.scaled_dot_product_attention(x, x, x)
        k = self.context(context)
        return x + F.scaled_dot_product_attention(self.query(x), k, k)


@pytest.mark.parametrize("compile", [True, False])
@torch.no_grad()
def test_products_before_the_region_go_to_onednn_where_steps_are_compiled(
    compile: bool, calls: list[torch.Size]
) -> None:
    model = ReadsContext(512).eval()
    optimized = marche_fx.transform(model, compile=compile)
    optimized(torch.randn(1, 15, 512), torch.randn(1, 100, 512))
    assert set(calls) == ({(1, 100, 512), (1, 15, 512)} if compile else set())
