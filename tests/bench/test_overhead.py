"""What a step costs beside its arithmetic: counts, which no machine changes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from marche_fx.bench.candidates import make_candidates
from marche_fx.bench.overhead import Overhead, count_overhead, counts
from marche_fx.bench.settings import Settings
from marche_fx.bench.variants import parse_variants
from marche_fx.bench.workload import mar_workload
from marche_fx.speed.clock import clock_for
from tests.sessions import grid_mar


@dataclass
class Event:
    name: str
    cpu_parent: Event | None = None


def test_each_event_is_counted_once() -> None:
    outer = Event("aten::linear")
    call = Event("## Call CompiledFxGraph abc ##")
    events = [
        outer,
        Event("aten::addmm", outer),
        Event("aten::bmm", Event("record_function", outer)),
        call,
        Event("aten::mm", call),
        Event("aten::copy_", Event("aten::mm", call)),
        Event("marche_fx::linear"),
        Event("cudaLaunchKernel"),
        Event("cudaLaunchKernelExC"),
        Event("cudaStreamSynchronize"),
        Event("Memcpy DtoH"),
    ]
    assert counts(events) == {"operators": 2, "compiled_calls": 1, "inside": 1, "launches": 2, "waits": 1}


def counted(word: str) -> Overhead:
    settings = Settings(batch=(1,), cfg=(1.0,), steps=8)
    workload = mar_workload(grid_mar().float(), 1, 1.0, 8)
    [candidate] = make_candidates(workload, parse_variants([word], (0.1,)), settings)
    return count_overhead(candidate, clock_for(torch.device("cpu")))


def test_a_step_of_the_original_dispatches_what_its_layers_do() -> None:
    found = counted("eager")
    assert found.rows is None
    assert found.operators > 20
    assert (found.compiled_calls, found.inside, found.launches, found.waits) == (0, 0, 0, 0)


@pytest.mark.parametrize(("word", "most"), [("ours:0.1-eager", 206), ("ours:1-eager", 197)])
def test_a_step_of_ours_dispatches_at_most_so_many_operators(word: str, most: int) -> None:
    """A bound of today's counts, to be lowered and never raised."""
    found = counted(word)
    assert found.rows is not None
    assert found.rows > 0
    assert found.operators <= most
    assert found.compiled_calls == 0
