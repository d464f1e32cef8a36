"""How many graphs there are, and what is said where there can be none."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import marche_fx
from marche_fx import ArgumentError, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.graphs import store as store_module
from marche_fx.runtime.graphs.recorder import CudaRecorder, RecordingError
from marche_fx.runtime.graphs.store import Graphs
from tests.runtime.graphs.networks import counts_of, graphed, store_of
from tests.runtime.graphs.tape import Tapes
from tests.sessions import inputs, transformer

POLICY = SelectiveRefresh(0.1, warmup=1)


def decoded(optimized: nn.Module, steps: int = 6) -> list[torch.Tensor]:
    with torch.no_grad(), marche_fx.decoding(optimized):
        return [optimized(x)[:, 5:9].clone() for x in inputs(steps)]


def expected() -> list[torch.Tensor]:
    return decoded(marche_fx.transform(transformer(2), refresh=POLICY, compile=False))


def assert_same(optimized: nn.Module) -> None:
    for own, known in zip(decoded(optimized), expected(), strict=True):
        torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)


def told(optimized: nn.Module, sessions: int = 3) -> list[str]:
    """What is warned of in some sessions, whose results are right."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(sessions):
            assert_same(optimized)
    return [str(own.message) for own in found]


def test_on_the_processor_it_is_said_once_and_steps_run_without() -> None:
    optimized = marche_fx.transform(transformer(2), refresh=POLICY, compile=False, cuda_graphs=True)
    (message,) = told(optimized)
    assert message.startswith("cuda_graphs=True has no effect, and steps run without: the step computes on cpu")
    assert marche_fx.report(optimized).warnings == (message,)


@pytest.mark.parametrize("given", [None, False])
def test_nobody_who_did_not_ask_has_graphs(given: bool | None) -> None:
    optimized = marche_fx.transform(transformer(2), refresh=POLICY, compile=False, cuda_graphs=given)
    assert optimization_of(optimized).settings.graphs is None
    assert not told(optimized, 1)


def test_it_is_a_flag() -> None:
    with pytest.raises(ArgumentError, match="cuda_graphs must be True, False or None, got 'reduce-overhead'"):
        marche_fx.transform(transformer(2), cuda_graphs="reduce-overhead")  # type: ignore[arg-type]


class RefusingTapes(Tapes):
    """A driver that records nothing."""

    def record(self, run: Callable[[], None]) -> Any:
        raise RuntimeError("CUDA error: operation not supported\nCompile with TORCH_USE_CUDA_DSA")


def test_a_driver_that_refuses_is_told_of_once() -> None:
    optimized = graphed(transformer(2), RefusingTapes(), refresh=POLICY)
    assert told(optimized) == [
        "CUDA graphs cannot be recorded here, so steps run without: RuntimeError: CUDA error: operation not supported"
    ]
    (counts,) = counts_of(optimized)
    assert counts.captures == counts.replays == 0
    assert counts.without == {"graphs cannot be recorded here": counts.steps - counts.first}


def test_a_device_that_lets_nobody_begin_is_told_of_once() -> None:
    optimized = graphed(transformer(2), refresh=POLICY)

    def make(device: torch.device) -> Tapes:
        raise RuntimeError("CUDA driver version is insufficient")

    store_of(optimized).make = make
    assert told(optimized) == [
        "cuda_graphs=True has no effect, and steps run without: RuntimeError: CUDA driver version is insufficient"
    ]


def test_a_pool_without_memory_is_told_of_once_and_graphs_that_are_there_go_on() -> None:
    tapes = Tapes(error=torch.OutOfMemoryError)
    optimized = graphed(transformer(2), tapes, refresh=POLICY)
    decoded(optimized, 3)
    (counts,) = counts_of(optimized)
    assert counts.captures == 2
    tapes.fail = lambda _: True
    messages = told(optimized, 2)
    assert messages == []
    # Longer sessions read more rows than were read before, which is another kind of step.
    store = store_of(optimized)
    for buffers in store.buffers:
        for kind, own in list(buffers.steps.items()):
            if own.rows.count < 40:
                store.drop(buffers, kind)
    (message,) = told(optimized, 2)
    assert message.startswith("there is no memory for another CUDA graph")
    assert counts.without == {"there is no memory for another graph": 9}
    assert counts.replays > 2


def test_a_graph_that_is_too_large_alone_is_told_of_once() -> None:
    optimized = graphed(transformer(2), Tapes(limit=100), refresh=POLICY)
    (message,) = told(optimized)
    assert "bytes, and all may take 100, so steps run without" in message
    assert store_of(optimized).size == 0


def test_graphs_go_that_were_not_used_for_longest() -> None:
    tapes = Tapes()
    optimized = graphed(transformer(2), tapes, refresh=POLICY)
    decoded(optimized)
    decoded(optimized)
    store = store_of(optimized)
    sizes = sorted(own.size for buffers in store.buffers for own in buffers.steps.values())
    assert len(sizes) == 2
    assert min(sizes) > 0
    tapes.limit = max(sizes)
    (buffers,) = store.buffers
    newest = max(buffers.steps.values(), key=lambda own: own.used)
    store.make_room(newest, tapes.limit)
    assert [*buffers.steps.values()] == [newest]
    assert store.dropped == 1
    assert not told(optimized)
    assert store.size <= tapes.limit


def test_kinds_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_KINDS", 1)
    optimized = graphed(transformer(2), refresh=POLICY)
    assert not told(optimized)
    assert sum(len(own.steps) for own in store_of(optimized).buffers) == 1
    assert store_of(optimized).dropped > 2


def test_idle_buffers_are_bounded() -> None:
    optimized = graphed(transformer(2), refresh=POLICY)
    sessions = [marche_fx.session(optimized) for _ in range(6)]
    for own in sessions:
        with torch.no_grad(), own:
            optimized(inputs(1)[0])[:, 5:9].clone()
    for own in sessions:
        own.close()
    assert len(store_of(optimized).idle) == 4
    gc.collect()
    assert len(store_of(optimized).buffers) == 4


def test_a_mode_sees_every_operator() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    optimized = graphed(transformer(2), refresh=POLICY)
    plain = marche_fx.transform(transformer(2), refresh=POLICY, compile=False)
    found = []
    for own in (optimized, plain):
        decoded(own)
        with FlopCounterMode(display=False) as flops:
            decoded(own)
        found.append(flops.get_total_flops())
    assert found[0] == found[1]
    (counts,) = counts_of(optimized)
    assert counts.without["a dispatch mode is to see every operator"] == 6


def test_what_a_processor_holds_is_no_input_of_a_graph() -> None:
    optimized = graphed(transformer(2), refresh=POLICY)
    decoded(optimized)
    (program,) = optimization_of(optimized).steps["forward"].programs
    (buffers,) = store_of(optimized).buffers
    assert program.graphs is not None
    assert program.graphs.why_not(buffers, [torch.zeros(()), 0.5]) == ""
    elsewhere = torch.zeros((), device="meta")
    assert program.graphs.why_not(buffers, [elsewhere]) == "it reads a tensor on meta, and computes on cpu"


def test_cuda_graphs_are_for_cuda() -> None:
    with pytest.raises(RecordingError, match="the step computes on mps"):
        CudaRecorder(torch.device("mps"))
    if torch.version.cuda is None:
        with pytest.raises(RecordingError, match="not built for CUDA"):
            CudaRecorder(torch.device("cuda"))
    assert Graphs().make is CudaRecorder
