"""What only a GPU can show of CUDA graphs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import DriftRefresh, FullRefresh, RefreshPolicy, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.graphs.counts import GraphCounts
from marche_fx.runtime.graphs.recorder import CudaRecorder
from tests.sessions import inputs, transformer

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

DEVICE = torch.device("cuda")

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.1}


def decoded(optimized: nn.Module, steps: list[Tensor]) -> list[Tensor]:
    with torch.no_grad(), marche_fx.decoding(optimized):
        return [optimized(x)[:, 5:9].clone() for x in steps]


def counts_of(optimized: nn.Module) -> list[GraphCounts]:
    steps = optimization_of(optimized).steps.values()
    return [own.graphs.counts for step in steps for own in step.programs if own.graphs is not None]


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("policy", [SelectiveRefresh(0.1, warmup=1), DriftRefresh(0.2, warmup=1), FullRefresh()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_steps_as_graphs_are_steps(policy: RefreshPolicy, compile: bool, dtype: torch.dtype) -> None:
    model = transformer(2).to(DEVICE, dtype)
    steps = inputs(8, dtype, "cuda")
    options: dict[str, Any] = {"refresh": policy, "compile": compile}
    expected = decoded(marche_fx.transform(model, **options), steps)
    optimized = marche_fx.transform(model, cuda_graphs=True, **options)
    for _ in range(3):
        for own, known in zip(decoded(optimized, steps), expected, strict=True):
            torch.testing.assert_close(own, known, atol=TOLERANCE[dtype], rtol=0.0)
    (counts,) = counts_of(optimized)
    assert counts.replays > 12
    assert not counts.without, counts.without
    assert not counts.apart, counts.apart


def test_autocast_is_part_of_a_graph() -> None:
    model = transformer(2).to(DEVICE, torch.float32)
    steps = inputs(8, torch.float32, "cuda")
    found = []
    for graphs in (None, True):
        optimized = marche_fx.transform(model, compile=False, cuda_graphs=graphs)
        for _ in range(3):
            with torch.autocast("cuda", torch.bfloat16):
                rows = decoded(optimized, steps)
        found.append(rows)
    for own, known in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(own, known, atol=0.1, rtol=0.0)
    assert all(own.replays > 8 and not own.without for own in counts_of(optimized))


def test_threads_on_streams_of_their_own_share_the_pool() -> None:
    model, steps = transformer(2).to(DEVICE), inputs(12, device="cuda")
    expected = decoded(marche_fx.transform(model, compile=False), steps)
    optimized = marche_fx.transform(model, compile=False, cuda_graphs=True)
    decoded(optimized, steps)
    found: dict[int, list[Tensor]] = {}
    stream_of = {number: torch.cuda.Stream() for number in range(3)}
    torch.cuda.synchronize()

    def work(number: int) -> None:
        with torch.cuda.stream(stream_of[number]):
            for _ in range(4):
                found[number] = decoded(optimized, steps)
            stream_of[number].synchronize()

    threads = [threading.Thread(target=work, args=(number,)) for number in stream_of]
    for own in threads:
        own.start()
    for own in threads:
        own.join()
    assert len(found) == 3
    for rows in found.values():
        for value, known in zip(rows, expected, strict=True):
            torch.testing.assert_close(value, known, atol=1e-9, rtol=0.0)


def test_a_recording_that_fails_leaves_a_recorder_that_works() -> None:
    recorder, x = CudaRecorder(DEVICE), torch.ones(4, device=DEVICE)
    y = torch.zeros(4, device=DEVICE)
    first = recorder.record(lambda: (y.add_(x), None)[1])

    def read() -> None:
        y.mul_(0.0)
        float(x.sum())

    with pytest.raises(RuntimeError):
        recorder.record(read)
    first.replay()
    recorder.record(lambda: (y.add_(x), None)[1]).replay()
    torch.cuda.synchronize()
    assert torch.equal(y, torch.full((4,), 2.0, device=DEVICE))


def test_a_step_in_graphs_launches_few_kernels() -> None:
    from torch.profiler import ProfilerActivity, profile

    optimized = marche_fx.transform(transformer(3).to(DEVICE), compile=False, cuda_graphs=True)
    steps = inputs(8, device="cuda")
    for _ in range(2):
        decoded(optimized, steps)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        decoded(optimized, steps)
    launched = sum(own.name.startswith("cudaGraphLaunch") for own in found.events() or ())
    assert launched == len(steps)
