"""One transformed model in many threads, warm and cold: every request is answered as if it were alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import CaptureError
from marche_fx.passes.capture.alone import LEFT_OUT, LOCK, tracing_alone
from marche_fx.passes.lower.kept import KEPT
from tests.around import WIDTH, Around, X, optimize, transformer
from tests.networks import Transformer

THREADS = 8
LENGTHS = (9, 12, 16, 20)

DURING: list[Any] = []
"""What another thread computed during a trace."""

RUNS: list[Callable[[], Any]] = []


class Words(nn.Module):
    """A transformer of words that keeps a table for each length on its class, and one for the last length."""

    tables: dict[int, Tensor] = {}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(11, WIDTH)
        self.inner: Transformer = transformer()
        self.inner.position = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.last: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        count = ids.shape[1]
        if count not in self.tables:
            self.tables[count] = torch.arange(count)[:, None] / 10
        if self.last is None or len(self.last) != count:
            self.last = torch.arange(count)[:, None] / 7
        return self.inner(self.word(ids) + self.tables[count] + torch.arange(count)[:, None] / 7)


def made() -> nn.Module:
    torch.manual_seed(0)
    return Words().eval()


def generation(model: nn.Module, seed: int, *, optimized: bool = True) -> Tensor:
    """A short generation, of a length that the seed chooses."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 11, (2, LENGTHS[seed % len(LENGTHS)]), generator=drawn)
    found = []
    with torch.no_grad():
        session = marche_fx.decoding(model) if optimized else torch.no_grad()
        with session:
            for step in range(3):
                found.append(model(ids)[:, :6].clone())
                ids[:, step] = torch.randint(0, 11, (2,), generator=drawn)
    return torch.cat(found)


def together(requests: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda request: request(), requests))


def answered_as_alone(model: nn.Module, count: int, **options: Any) -> None:
    alone = marche_fx.transform(model, **options)
    expected = [generation(alone, seed) for seed in range(count)]
    Words.tables.clear()
    KEPT.forget()
    cold = marche_fx.transform(model, **options)
    found = together([lambda seed=seed: generation(cold, seed) for seed in range(count)])  # type: ignore[misc]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_requests_in_threads_are_answered_as_alone() -> None:
    answered_as_alone(made(), 200, compile=False)


@pytest.mark.slow
def test_compiled_requests_in_threads_are_answered_as_alone() -> None:
    answered_as_alone(made(), 24, compile=True)


def test_two_transforms_and_the_original_run_beside_one_another() -> None:
    model = made()
    expected = [generation(model, seed, optimized=False) for seed in range(24)]
    Words.tables.clear()
    first, second = optimize(model), optimize(model)

    def request(seed: int) -> Callable[[], Tensor]:
        own = (first, second, model)[seed % 3]
        return lambda: generation(own, seed, optimized=own is not model)

    found = together([request(seed) for seed in range(24)])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_a_generation_does_not_wait_for_a_capture() -> None:
    optimized = marche_fx.transform(made(), compile=False)
    expected = generation(optimized, 0)
    # As a capture of another shape in another thread.
    with LOCK, ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(generation, optimized, 0).result(timeout=60), expected)


def test_what_another_thread_runs_during_a_trace_is_not_traced() -> None:
    other = marche_fx.transform(made(), compile=False)
    runs: list[Callable[[], Any]] = [
        lambda: generation(other, 0),
        lambda: generation(made(), 0, optimized=False),
        lambda: type(made().inner),
        lambda: torch._C._get_mkldnn_enabled(),
    ]
    expected = [run() for run in runs]
    DURING.clear()

    def forward(model: Any, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            with ThreadPoolExecutor(1) as pool:
                DURING.extend(pool.submit(run).result(timeout=60) for run in RUNS)
        return model.again(model.inner(x) @ model.inner.head.weight)

    RUNS[:] = runs
    tracing = Around(forward)
    # PyTorch hands out stand-ins for modules where one of them has two names.
    tracing.again = tracing.inner.head
    with torch.no_grad():
        assert torch.equal(optimize(tracing)(X), tracing(X))
    assert len(DURING) == len(expected)
    for a, b in zip(DURING, expected):
        assert type(a) is type(b)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a is b


def test_a_capture_that_fails_in_one_thread_leaves_the_others_alone() -> None:
    model = made()
    expected = [generation(optimize(model), seed) for seed in range(4)]
    cold = optimize(model)

    def fail() -> None:
        with torch.no_grad(), pytest.raises(CaptureError):
            cold(torch.zeros(2, 9))

    requests: list[Callable[[], Any]] = [lambda seed=seed: generation(cold, seed) for seed in range(4)]  # type: ignore
    found = together([fail, *requests, fail])[1:-1]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_captures_in_threads_leave_pytorch_as_it_was() -> None:
    """What a trace replaces is read and put back under the lock: a thread that waits must not keep another's."""
    from torch.export import _trace
    from torch.fx._symbolic_trace import _Patcher

    def state() -> list[Any]:
        return [_Patcher.patch_method, *(getattr(_trace, name) for name in LEFT_OUT), torch.nn.Module.__call__]

    before, barrier = state(), threading.Barrier(4)

    def trace() -> None:
        barrier.wait()
        with tracing_alone():
            time.sleep(0.02)

    for _ in range(5):
        together([trace] * 4)
    assert all(own is other for own, other in zip(state(), before, strict=True))
