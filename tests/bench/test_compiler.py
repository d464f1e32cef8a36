"""`torch.compile` in a benchmark, and a machine without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from marche_fx.bench import Settings, bench, parse_variants, user_workload
from marche_fx.bench.compiler import compiled_original, compiling, graphs_compiled
from marche_fx.models.drift import read_rows, replay
from tests.evaluate.tiny import silent, tiny_garments

SCRIPT = """
from marche_fx.bench import Settings, bench, parse_variants
from tests.evaluate.tiny import tiny_garments
settings = Settings(batch=(1,), cfg=(1.0,), steps=4, repeats=1, head=False)
found = bench(tiny_garments(), parse_variants(["eager", "compiled", "ours"], [0.1]), settings)
print(sorted({row.label for row in found.rows}))
"""


def test_without_a_compiler_everything_runs_eagerly_and_that_is_said_once(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    # What an earlier run compiled needs no compiler.
    changes = {"CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, **changes}, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch.compile does not work here") == 1
    assert done.stdout.splitlines()[-1] == "['eager', 'ours-eager 10%']"


@pytest.mark.slow
def test_compiled_variants_count_their_graphs_before_the_timing_and_none_in_it() -> None:
    work = user_workload("tests.bench.models:text")
    variants = parse_variants(["eager", "compiled", "ours"], [0.1])
    found = bench(work, variants, Settings(every=2, repeats=1), console=silent())
    rows = {row.variant: row for row in found.rows if row.part == "transformer"}
    assert rows["eager"].compilations == 0
    for own in (rows["compiled"], rows["ours"]):
        assert own.compilations >= 1
        assert own.compile_seconds > 0
    assert rows["ours"].timed_compilations == 0
    assert rows["ours"].speedup_vs_compiled is not None
    assert rows["compiled"].speedup_vs_compiled == 1.0


def test_a_compiled_original_leaves_the_original_alone() -> None:
    mar = tiny_garments()
    compiled = compiled_original(mar, ["forward_mae_encoder", "forward_mae_decoder"])
    assert type(compiled) is type(mar)
    assert "forward_mae_encoder" not in vars(mar)
    images, orders = torch.zeros(1, 1, 28, 28), torch.arange(16)[None]
    with torch.no_grad(), compiling():
        before = graphs_compiled()
        (_, step) = replay(mar, images, orders, torch.zeros(1, dtype=torch.long), 2, 1.0)
        torch.testing.assert_close(read_rows(compiled, step), read_rows(mar, step))
        # One for each method: dropping tokens does not break the graph.
        assert graphs_compiled() - before == 2
