"""Where the time of a step goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from marche_fx.bench import Settings, break_down, mar_workload, parse_variants
from marche_fx.bench.breakdown import ATTENTION, CACHE, CHOICE, EPILOGUE, GATHER, MLP, PROJECTIONS, PROLOGUE, RANGES
from marche_fx.bench.candidates import Candidate, make_candidates
from marche_fx.bench.tables import breakdown_table
from marche_fx.errors import ArgumentError
from marche_fx.speed.clock import ProcessorClock
from tests.evaluate.tiny import silent, tiny_garments, written


def candidate_of(word: str, steps: int = 8) -> Candidate:
    work = mar_workload(tiny_garments(), 1, 1.0, steps)
    (found,) = make_candidates(work, parse_variants([word], [0.1]), Settings())
    return found


def test_a_partial_step_is_told_by_what_it_does(tmp_path: Path) -> None:
    methods = [getattr(kind, name) for own in RANGES.values() for kind, name in own]
    trace = tmp_path / "trace.json"
    found = break_down(
        candidate_of("ours-eager"), ProcessorClock(), lambda profiled: profiled.export_chrome_trace(str(trace)), count=2
    )
    assert [getattr(kind, name) for own in RANGES.values() for kind, name in own] == methods
    assert found.steps == (5, 6)
    assert found.rows["decoder"] < 18
    for part in ("encoder", "decoder"):
        spent = found.milliseconds[part]
        for what in (PROLOGUE, CHOICE, GATHER, ATTENTION, CACHE, MLP, PROJECTIONS, EPILOGUE):
            assert spent[what] > 0, (part, what)
    assert found.unprofiled > 0
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"marche_fx: decoder", "marche_fx: region", "aten::linear"} <= names
    console = silent()
    console.print(breakdown_table(found))
    assert "cache update" in written(console)
    assert json.loads(json.dumps(found.to_dict()))["variant"] == "ours-eager 10%"


@pytest.mark.parametrize(
    ("word", "steps", "message"), [("eager", 8, "has no parts to profile"), ("ours-eager", 2, "at least 3")]
)
def test_what_has_no_partial_steps_is_refused(word: str, steps: int, message: str) -> None:
    with torch.no_grad(), pytest.raises(ArgumentError, match=message):
        break_down(candidate_of(word, steps), ProcessorClock())
