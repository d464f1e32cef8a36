"""What the first decoding steps cost in processor time, by phase: the tables of "Starting" in docs/performance.md.

Each column is a process of its own with one thread: the original under `torch.compile`, the transformed model, both in
a folder of the compiler that is empty, and the latter again with what that process saved, in its folder. Children
count, as the C++ compiler. Importing PyTorch and marche_fx, loading the model and one eager generation come before.
The header that the C++ compiler prepares once on a machine is there: run it twice.

    python scripts/first_call.py --batch 1 --batch 8
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMPILER = {
    "tests of the processor": ["torch._inductor.cpu_vec_isa:VecISA.check_build"],
    "C++ headers": ["torch._inductor.codecache:_precompile_header"],
    "C++ kernels": ["torch._inductor.cpp_builder:run_compile_cmd"],
    "Inductor": ["torch._inductor.compile_fx:compile_fx"],
}
DYNAMO = {"Dynamo": ["torch._dynamo.convert_frame:_compile"]}
OURS = {
    "traces of pieces": ["marche_fx.passes.lower.compiled:compile_alone"],
    "sizes": ["marche_fx.passes.lower.lower:ragged_dims"],
    "lower": ["marche_fx.passes.pipeline:lower"],
    "export": ["marche_fx.passes.capture.capture:export"],
    "decompositions": ["torch.export:ExportedProgram.run_decompositions"],
    "rehearsal": ["marche_fx.passes.capture.capture:rehearse"],
    "capture": ["marche_fx.api.lengths:Lengths.capture"],
    "analysis": ["marche_fx.api.captures:make_plan", "marche_fx.api.captures:plan_of"],
    "rewriting": ["marche_fx.api.captures:Program"],
    "verification": ["marche_fx.api.step:OptimizedStep.original"],
}
"""What is timed, as ``module:name``, without what is timed within it."""

WHOLE = ("tests of the processor", "C++ headers")
"""Phases that have what is timed within them."""


def spent() -> float:
    """Seconds of processors that this process and its children took."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in (own, children))


class Phases:
    """Seconds and calls of each phase, none of them counted twice."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.open: list[str] = []
        self.since = 0.0

    def turn(self) -> None:
        """Give what was spent since the last turn to the innermost phase."""
        now = spent()
        self.seconds[self.open[-1] if self.open else ""] += now - self.since
        self.since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.turn()
        self.open.append(next((own for own in self.open if own in WHOLE), name))
        self.calls[name] += name == self.open[-1]
        try:
            yield
        finally:
            self.turn()
            self.open.pop()

    def watch(self, place: str, name: str) -> None:
        """Count what ``place`` takes as phase ``name``."""
        module, _, path = place.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, last = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, last, self.phase(name)(getattr(owner, last)))


def run(variant: str, batch: int, steps: int, saved: Path) -> dict[str, Any]:
    """The first decoding steps of garments in this process: seconds and calls of each phase."""
    import torch
    from torch.utils import _pytree as pytree

    import marche_fx
    from marche_fx.bench.compiler import compiled_original
    from marche_fx.bench.workload import mar_workload, rows_of
    from marche_fx.models import load_fashion_mar
    from marche_fx.passes.capture.arguments import opened
    from marche_fx.tuning.replay import keep

    torch.set_num_threads(1)
    original = load_fashion_mar()
    workload = mar_workload(original, batch, 1.0 if batch == 1 else 3.0, 16)
    phases = Phases()

    @torch.no_grad()
    def decode(model: Any) -> None:
        results: dict[int, list[Any]] = {}
        for work in workload.steps[:steps]:
            for place, call in enumerate(work.calls, work.first):
                args, kwargs = call.given(results)
                leaves = pytree.tree_leaves(opened(getattr(model, call.step)(*args, **kwargs)))
                for own in call.reads:
                    rows_of(own, leaves[own.leaf])
                keep(results, place, leaves)

    decode(original)
    phases.since = begin = spent()
    with phases.phase("imports"):
        for name, places in {**COMPILER, **(DYNAMO if variant == "compiled" else OURS)}.items():
            for place in places:
                phases.watch(place, name)
    if variant == "compiled":
        torch._dynamo.config.capture_dynamic_output_shape_ops = True
        decode(compiled_original(original, workload.step_methods))
    else:
        optimized = marche_fx.transform(original)
        if variant == "again":
            with phases.phase("loading"):
                marche_fx.load_captures(optimized, saved)
        with marche_fx.decoding(optimized):
            decode(optimized)
    phases.turn()
    whole = spent() - begin
    if variant == "ours":
        marche_fx.save_captures(optimized, saved)
    return {"whole": whole, "seconds": phases.seconds, "calls": phases.calls}


def in_a_process(variant: str, batch: int, steps: int, folder: str, cache: str) -> dict[str, Any]:
    where = os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": cache,
        # In this process, where it is timed.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    given = ["--only", variant, "--batch", str(batch), "--steps", str(steps), "--saved", f"{folder}/saved"]
    done = subprocess.run([sys.executable, __file__, *given], env=where, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--steps", type=int, default=5, help="decoding steps; the first three are in full")
    parser.add_argument("--only", choices=("compiled", "ours", "again"))
    parser.add_argument("--saved", type=Path)
    given = parser.parse_args()
    if given.saved is not None:
        print(json.dumps(run(given.only, given.batch[0], given.steps, given.saved)))
        return
    for batch in given.batch or [1, 8]:
        with tempfile.TemporaryDirectory() as folder:
            found = {}
            for variant in ("compiled", "ours", "again"):
                if given.only in (None, variant):
                    cache = f"{folder}/{'ours' if variant == 'again' else variant}"
                    found[variant] = in_a_process(variant, batch, given.steps, folder, cache)
        print("\n".join(table(batch, found)), flush=True)


def table(batch: int, found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Markdown: seconds, and calls in brackets."""
    yield f"| batch {batch}{', guidance' if batch > 1 else ''} | {' | '.join(found)} |"
    yield "| --- |" + " --- |" * len(found)
    # What is told is all that was spent, so that what belongs to no phase is a row too.
    names = [*dict.fromkeys(name for own in found.values() for name in own["seconds"])]
    for name in sorted(names, key=lambda name: -max(own["seconds"].get(name, 0) for own in found.values())):
        told = [f"{own['seconds'].get(name, 0):.1f} ({own['calls'].get(name, 0)})" for own in found.values()]
        yield f"| {name or 'all else'} | {' | '.join(told)} |"
    yield f"| **together** | {' | '.join(format(own['whole'], '.1f') for own in found.values())} |"


if __name__ == "__main__":
    main()
