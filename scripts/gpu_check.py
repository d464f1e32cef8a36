"""Checks of marche_fx on a GPU, the most telling first, until the time is over; see gpu_check.sh."""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import marche_fx
from marche_fx.bench.candidates import make_candidates
from marche_fx.bench.compiler import compiling
from marche_fx.bench.machine import machine
from marche_fx.bench.overhead import count_overhead
from marche_fx.bench.run import bench, sized, workloads
from marche_fx.bench.settings import Settings
from marche_fx.bench.variants import parse_variants
from marche_fx.models.text.decoding import generate
from marche_fx.models.text.model import TextDiffusion
from marche_fx.saving.files import write_json
from marche_fx.speed.clock import clock_for

SHARES = (1.0, 0.25, 0.1, 0.05)
COMPILED = ("eager", "compiled", "ours")
GRAPHS = ("eager", "ours", "ours-graphs")
EAGER = ("eager", *(f"ours:{share}-eager" for share in SHARES))


@dataclass(frozen=True)
class Run:
    """What all checks share."""

    device: torch.device
    out: Path
    console: Console
    ends: float
    is_trial: bool
    """Whether small models stand for large ones, to try the script itself."""

    def size(self, name: str) -> str:
        return "fashion" if self.is_trial else name

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()


Found = dict[str, Any]


def tests(run: Run) -> Found:
    """The tests that need a GPU."""
    # Others need packages that are not here.
    files = [str(own) for own in Path("tests").rglob("test_*.py") if "mark.cuda" in own.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=min(150.0, max(run.left, 1.0)))
    run.console.print(done.stdout[-4000:], done.stderr[-2000:], markup=False)
    return {"exit_code": done.returncode, "last_line": done.stdout.strip().splitlines()[-1:]}


def steps_of(run: Run, size: str, batch: int, dtype: torch.dtype, words: tuple[str, ...]) -> Found:
    """Times, memory and FLOPs of a MAR's decoding steps: the original's and ours."""
    settings, model = settings_of(batch), sized(run.size(size), run.device, 0).to(dtype)
    found = bench(model, parse_variants(words, SHARES), settings, name=size, console=run.console)
    return found.to_dict()


def overhead(run: Run, size: str, dtype: torch.dtype, words: tuple[str, ...]) -> Found:
    """Operators, launches and waits of a step."""
    settings, model = settings_of(1), sized(run.size(size), run.device, 0).to(dtype)
    workload = next(workloads(model, settings, size))
    with compiling():
        candidates = make_candidates(workload, parse_variants(words, (0.1,)), settings)
        return {"steps": [count_overhead(own, clock_for(run.device)).to_dict() for own in candidates]}


def settings_of(batch: int) -> Settings:
    return Settings(batch=(batch,), cfg=(1.0 if batch == 1 else 3.0,), steps=64, repeats=2, head=False)


def text(run: Run, dtype: torch.dtype) -> Found:
    """LLaDA's loop on a text model of 32,000 pieces: the original, and with nothing passed."""
    pieces, width, depth, half = (32_000, 768, 12, 512) if not run.is_trial else (4_096, 64, 2, 32)
    torch.manual_seed(0)
    with run.device:
        model = TextDiffusion(pieces, width=width, depth=depth, heads=width // 64).to(dtype).eval()
    model.requires_grad_(False)
    optimized = marche_fx.transform(model, compile=False)
    prompt = torch.randint(pieces, (1, half), device=run.device)
    found: Found = {}
    clock = clock_for(run.device)
    # In turns, so that what the machine does otherwise meets both.
    for _ in range(3):
        for name, own in (("original", model), ("optimized", optimized)):
            begin = clock.mark()
            with marche_fx.decoding(optimized):
                result = decoded(own, prompt, half, model.mask_id)
            end = clock.mark()
            clock.settle()
            found[name] = {"seconds": clock.seconds(begin, end), "ids": result}
    same = (found["original"].pop("ids") == found["optimized"].pop("ids"))[:, half:]
    found["same_pieces"] = same.float().mean().item()
    found["speedup"] = found["original"]["seconds"] / found["optimized"]["seconds"]
    session = marche_fx.report(optimized).session
    if session is not None:
        found["rows_ratio"] = session.rows_ratio
    return found


def decoded(model: Callable[[Tensor], Tensor], prompt: Tensor, length: int, mask_id: int) -> Tensor:
    blocks = 4 if length >= 128 else 1
    return generate(model, prompt, length, mask_id=mask_id, block_length=length // blocks, steps_per_block=16)


def checks() -> dict[str, Callable[[Run], Found]]:
    """Every check by name, the most telling first."""
    half, full = torch.bfloat16, torch.float32
    found: dict[str, Callable[[Run], Found]] = {
        "overhead": partial(overhead, size="base", dtype=half, words=("eager", "ours:1-eager", "ours:0.1-eager")),
        "base-1-bf16": partial(steps_of, size="base", batch=1, dtype=half, words=COMPILED),
        "base-64-bf16": partial(steps_of, size="base", batch=64, dtype=half, words=COMPILED),
        "overhead-graphs": partial(
            overhead, size="base", dtype=half, words=("ours:0.1-graphs", "ours:0.1-eager-graphs")
        ),
        "base-1-bf16-graphs": partial(steps_of, size="base", batch=1, dtype=half, words=GRAPHS),
        "text-bf16": partial(text, dtype=half),
        "tests": tests,
        "base-64-bf16-graphs": partial(steps_of, size="base", batch=64, dtype=half, words=GRAPHS),
        "overhead-compiled": partial(overhead, size="base", dtype=half, words=("compiled", "ours:0.1")),
        "base-1-reduce-overhead": partial(
            steps_of, size="base", batch=1, dtype=half, words=("eager", "reduce-overhead")
        ),
    }
    for size, batch, dtype in (
        ("large", 1, half),
        ("base", 1, full),
        ("base", 8, half),
        ("large", 64, half),
        ("base", 64, full),
        ("large", 8, half),
        ("base", 8, full),
        ("large", 1, full),
        ("large", 8, full),
    ):
        word = "bf16" if dtype == half else "f32"
        found[f"{size}-{batch}-{word}-eager"] = partial(steps_of, size=size, batch=batch, dtype=dtype, words=EAGER)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cpu tries the script itself, with small models")
    parser.add_argument("--seconds", type=float, default=340.0)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu_check")))
    parser.add_argument("--only", action="append", choices=list(checks()), default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    began = time.monotonic()
    console = Console(record=True, width=160)
    run = Run(device, options.out, console, began + options.seconds, device.type == "cpu")
    results: dict[str, Any] = {"machine": machine(device), "checks": {}}
    for name, check in checks().items():
        if options.only and name not in options.only:
            continue
        if run.left < 10:
            results["checks"][name] = {"not_reached": True}
            continue
        console.rule(f"{name}, {run.left:.0f} s left")
        started = time.monotonic()
        try:
            found = check(run)
        except Exception as error:
            # The others still tell something.
            found = {"raised": f"{type(error).__name__}: {error}"[:2000]}
            console.print(traceback.format_exc(), markup=False)
        results["checks"][name] = found | {"took": time.monotonic() - started}
        console.print(*lines_of(found), sep="\n", markup=False, highlight=False)
        write_json(options.out / "gpu_check.json", results)
        console.save_text(str(options.out / "gpu_check.txt"), clear=False)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    write_json(options.out / "gpu_check.json", results)


def lines_of(found: Found) -> Iterator[str]:
    """What a check found, a line each."""
    for row in found.get("rows", []) if isinstance(found.get("rows"), list) else []:
        if row["part"] == "transformer":
            over = {name: row[f"speedup_vs_{name}"] for name in ("eager", "compiled")}
            ratios = ", ".join(f"{own:.2f}x over {name}" for name, own in over.items() if own is not None)
            share = "" if row["refresh"] is None else f" {100 * row['refresh']:g}%"
            per_step = 1000 * row["seconds"] / row["steps"]
            yield f"{row['variant']}{share}: {per_step:.2f} ms a step, {ratios}, FLOPs {row['flops_ratio']}"
    for step in found.get("steps", []):
        yield str(step)
    if "rows" not in found or not isinstance(found["rows"], list):
        yield str({name: own for name, own in found.items() if name not in ("rows", "steps")})


if __name__ == "__main__":
    main()
