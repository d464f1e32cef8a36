from __future__ import annotations

import json

import torch

import marche_fx
from marche_fx.bench.machine import described, machine


def test_a_machine_is_described_by_what_times_depend_on() -> None:
    found = machine(torch.device("cpu"))
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__
    assert found["marche_fx"] == marche_fx.__version__
    assert found["processor"]
    assert json.loads(json.dumps(found)) == found


def test_a_line_says_it() -> None:
    versions = {"torch": "2", "python": "3", "marche_fx": "0"}
    found = {"processor": "Abacus", "device": "cpu", "threads": 2, **versions}
    assert described(found) == "Abacus, 2 threads, torch 2, python 3, marche_fx 0"
    assert described({**found, "threads": 1, "device": "Slate"}).startswith("Slate, Abacus, 1 thread, ")
