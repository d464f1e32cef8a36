"""``transform(cache_dtype=...)``: half the memory, what that costs, and where it costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import FullRefresh, RefreshPolicy, RowSignal, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.errors import ArgumentError
from tests.networks import Transformer
from tests.runtime.test_signals import Recorder

STEPS = 5


def network() -> nn.Module:
    torch.manual_seed(0)
    return Transformer(40, 16, 2, depth=2).eval()


@torch.no_grad()
def decoded(
    model: nn.Module,
    dtype: torch.dtype | None,
    refresh: RefreshPolicy | None = None,
    *,
    compile: bool = False,
    samples: int = 2,
) -> tuple[nn.Module, list[Tensor]]:
    """The transformed model and three rows of each step."""
    refresh = refresh or SelectiveRefresh(0.1, warmup=1)
    optimized = marche_fx.transform(model, refresh=refresh, compile=compile, cache_dtype=dtype)
    x = torch.randn(samples, 40, 16, generator=torch.Generator().manual_seed(0))
    found = []
    with marche_fx.decoding(optimized):
        for step in range(STEPS):
            found.append(optimized(x)[:, 3:6].clone())
            x = x.clone()
            x[:, step] += 1
    return optimized, found


def distances(found: list[Tensor], other: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, other, strict=True)]


@pytest.mark.parametrize("compile", [False, True])
def test_caches_are_half_as_large_and_the_loss_is_measured(compile: bool) -> None:
    model = network()
    optimized, rounded = decoded(model, torch.bfloat16, compile=compile)
    plain, exact = decoded(model, None, compile=compile)
    (step,), (other,) = marche_fx.report(optimized).steps, marche_fx.report(plain).steps
    assert 2 * step.cache_bytes["attention"] == other.cache_bytes["attention"] == step.rounded["attention"]
    # Results are what a loop reads: they are not rounded.
    assert step.cache_bytes["result"] == other.cache_bytes["result"]
    moved = distances(rounded, exact)
    assert moved[0] == 0, "the first step computes all tokens"
    assert 0 < max(moved) < 1e-2
    assert step.rounding is not None
    assert 0 < step.rounding < 1e-2
    assert other.rounding is None
    assert "rounded from" in str(marche_fx.report(optimized))
    assert "differed by at most" in str(marche_fx.report(optimized))
    assert "rounded" not in str(marche_fx.report(plain))


def test_a_session_counts_the_bytes_that_it_keeps() -> None:
    model = network()
    (optimized, _), (plain, _) = decoded(model, torch.bfloat16), decoded(model, None)
    own, other = (marche_fx.report(each).session for each in (optimized, plain))
    assert own is not None
    assert other is not None
    result = marche_fx.report(plain).steps[0].cache_bytes["result"]
    assert 2 * (own.cache_bytes - result) == other.cache_bytes - result


@pytest.mark.parametrize("policy", [FullRefresh(), SelectiveRefresh(1.0)])
def test_with_all_tokens_active_nothing_is_rounded(policy: RefreshPolicy) -> None:
    model = network()
    _, rounded = decoded(model, torch.bfloat16, policy)
    _, exact = decoded(model, None, policy)
    assert all(torch.equal(a, b) for a, b in zip(rounded, exact, strict=True))


def test_the_loss_is_that_of_rows_beside_rounded_ones() -> None:
    """The same, by a session of one's own: a step of all tokens, then the same inputs with some tokens computed."""
    model = network()
    optimized, _ = decoded(model, torch.bfloat16)
    (program,) = optimization_of(optimized).steps["forward"].programs
    x = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), marche_fx.decoding(optimized):
        first = optimized(x)[:, :].clone()
        again = optimized(x)[:, :8].clone()
    moved = ((again - first[:, :8]).norm(dim=-1) / first[:, :8].norm(dim=-1)).max()
    assert program.rounding is not None
    # Which rows are looked at differs, and how far they move hardly does.
    assert program.rounding / 4 < float(moved) < 4 * program.rounding


def test_caches_that_are_no_more_precise_stay_as_they_are() -> None:
    model = network().bfloat16()
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        optimized = marche_fx.transform(model, compile=False, cache_dtype=dtype)
        with torch.no_grad(), marche_fx.decoding(optimized):
            optimized(torch.randn(2, 40, 16).bfloat16())[:, :3].sum()
        (step,) = marche_fx.report(optimized).steps
        assert not step.rounded
        assert step.rounding is None


def test_a_row_signal_sees_both_in_the_same_precision() -> None:
    seen = []

    def drift(now: Tensor, before: Tensor | None) -> Tensor:
        assert before is not None
        seen.append((now.dtype, before.dtype))
        return (now - before).norm(dim=-1)

    signal = RowSignal(drift, "blocks.1.attention", "v")
    decoded(network(), torch.bfloat16, Recorder(signal, tolerance=0.0))
    assert set(seen) == {(torch.float32, torch.float32)}


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.float64, torch.float8_e4m3fn, "bfloat16", torch.ones(1), np.float16]
)
def test_other_dtypes_are_refused_by_name(dtype: object) -> None:
    with pytest.raises(
        ArgumentError, match=r"cache_dtype must be one of torch\.bfloat16, torch\.float16, torch\.float32"
    ):
        marche_fx.transform(network(), cache_dtype=dtype)  # type: ignore[arg-type]


def test_keys_beyond_the_range_are_refused_with_what_to_do() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("blocks.0.attention.qkv.weight").mul_(1e5)
    with pytest.raises(ArgumentError, match=r"float16 cannot hold what \w+\.forward caches.*bfloat16"):
        decoded(model, torch.float16)
    decoded(model, torch.bfloat16)


def test_so_few_tokens_that_all_run_tell_nothing_of_it() -> None:
    torch.manual_seed(0)
    optimized = marche_fx.transform(Transformer(6, 16, 2).eval(), compile=False, cache_dtype=torch.bfloat16)
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(torch.randn(2, 6, 16))[:, :2].sum()
    (step,) = marche_fx.report(optimized).steps
    assert step.rounding is None
    assert step.rounded
