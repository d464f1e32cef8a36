"""What ``marche-fx bench`` does with its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..errors import ArgumentError
from ..evaluate.run import wide_console
from ..models import MAR
from ..models.devices import device_of
from ..recipes.presets import TASKS
from ..saving.files import replacing, write_json
from ..saving.locks import held_folder
from ..speed.clock import clock_for
from .ablation import ablation_of, ablation_variants
from .breakdown import Breakdown, break_down
from .candidates import make_candidates
from .compiler import compiling
from .machine import machine
from .memory import refuse_what_does_not_fit
from .overhead import Overhead, measure_overhead, narrow_workload
from .resume import cut_off
from .run import bench, save_bench, say, sized, variants_that_run, workloads
from .scaling import measure_scaling
from .scaling_plot import save_scaling
from .settings import Settings
from .tables import ablation_table, bench_tables, breakdown_table, overhead_table, scaling_table
from .user_model import user_workload
from .variants import COMPILED, DEFAULT_REFRESH, EAGER, OURS, UNCOMPILED, Variant, default_words, parse_variants
from .workload import Workload

OVERHEAD_WORDS = (EAGER, COMPILED, f"{OURS}:1", f"{OURS}:0.1")
"""The original, and ours in full and in part."""


@dataclass(frozen=True)
class Wanted:
    """What to benchmark.

    Attributes:
        size: of MAR, ``fashion`` when neither it nor a model is given. model: ``module:function``.
        words, refresh: see `parse_variants`; the usual ones when empty.
        device: ``cpu`` or ``cuda``.
        profile: instead of timing generations, show where the time of a partial step goes. scaling: instead, show how
            time and memory grow. overhead: instead, count what a step costs beside its arithmetic. ablation: what each
            ingredient of a generation is worth.

    Raises:
        ArgumentError: options contradict each other.
    """

    size: str | None = None
    model: str | None = None
    words: tuple[str, ...] = ()
    refresh: tuple[float, ...] = ()
    device: str = "cpu"
    profile: bool = False
    scaling: bool = False
    overhead: bool = False
    ablation: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and self.model is not None:
            raise ArgumentError(f"give --size or --model, not both: got {self.size} and {self.model}")
        asked = [f"--{own}" for own in ("profile", "scaling", "overhead", "ablation") if getattr(self, own)]
        if len(asked) > 1:
            raise ArgumentError(f"give {' or '.join(asked)}, not both")
        if self.ablation and (self.words or self.model is not None):
            raise ArgumentError("--ablation has variants of its own, for a MAR: give no --variant and no --model")

    @property
    def name(self) -> str:
        return self.size or "fashion"

    @property
    def task(self) -> str:
        """Whose recipes are meant by their names."""
        return self.name if self.name in TASKS else TASKS[0]

    def variants(self, settings: Settings) -> list[Variant]:
        """What is compared, or profiled."""
        if self.profile:
            words: Sequence[str] = self.words or (OURS + UNCOMPILED, OURS)
            found = [own for own in parse_variants(words, self.refresh or (0.1,), self.task) if not own.is_original]
            if not found:
                raise ArgumentError(f"{', '.join(words)}: the original has no parts to profile; profile {OURS}")
            return found
        if self.ablation:
            if settings.denoising is not None or not settings.head:
                raise ArgumentError("--ablation compares heads: give no --denoising and no --no-head")
            return ablation_variants(settings)
        if self.overhead:
            return parse_variants(self.words or OVERHEAD_WORDS, self.refresh or (0.1,), self.task)
        words = self.words or default_words(settings.steps if self.model is None else None)
        return parse_variants(words, self.refresh or DEFAULT_REFRESH, self.task)


def run_bench(wanted: Wanted, settings: Settings, out: Path, *, console: Console | None = None) -> None:
    """Benchmark what is wanted; print tables, write JSON and pictures to the folder ``out``.

    Raises:
        ArgumentError: an option is out of its range or names what does not exist, there is not the memory for it, or
            another process is at work in ``out``.
    """
    console = console or wide_console()
    device, variants = device_of(wanted.device), wanted.variants(settings)
    loaded = None
    # A folder is made once nothing that was asked for is refused.
    if wanted.model is not None and not wanted.scaling:
        loaded = user_workload(wanted.model)
    elif not wanted.scaling:
        refuse_what_does_not_fit(wanted.name, variants, settings, device)
    with held_folder(out, "benchmarking"):
        if wanted.scaling:
            run_scaling(out, device, settings, console)
        else:
            subject = sized(wanted.name, device, settings.seed) if loaded is None else loaded
            run_variants(subject, wanted, variants, settings, out, console)


def run_variants(
    subject: MAR | Workload,
    wanted: Wanted,
    variants: Sequence[Variant],
    settings: Settings,
    out: Path,
    console: Console,
) -> None:
    """Profile variants of a model, count what their steps cost, or time their generations, as it is wanted."""
    if wanted.profile:
        run_profile(next(workloads(subject, settings, wanted.name)), variants, settings, out, console)
        return
    if wanted.overhead:
        run_overhead(next(workloads(subject, settings, wanted.name)), wanted, variants, settings, out, console)
        return
    known = cut_off(out, variants, settings, device_of(wanted.device))
    for batch, cfg in known.done if known else ():
        console.print(f"batch {batch}, guidance {cfg:g}: as the run before found, which was cut off", markup=False)
    show = partial(save_bench, out=out)
    found = bench(subject, variants, settings, name=wanted.name, console=console, shown=show, known=known)
    for part in bench_tables(found):
        console.print(part, markup=False, highlight=False)
    files = "bench.json, bench.png"
    if wanted.ablation:
        ablation = ablation_of(found)
        write_json(out / "ablation.json", ablation.to_dict())
        console.print(ablation_table(ablation), markup=False, highlight=False)
        files += ", ablation.json"
    console.print(f"{out}: {files}")


def run_overhead(
    workload: Workload, wanted: Wanted, variants: Sequence[Variant], settings: Settings, out: Path, console: Console
) -> None:
    """Count what a step of every variant costs beside its arithmetic: a table and ``overhead.json``."""
    narrow = None if wanted.model is not None else narrow_workload(wanted.name, workload)
    found: list[Overhead] = []
    with console.status("Counting ..."):
        able = variants_that_run(variants, workload.device, console)
        for own in measure_overhead(workload, narrow, able, settings):
            say(console, f"counted: {own.variant}")
            found.append(own)
    rows = [own.to_dict() for own in found]
    values = {"machine": machine(workload.device), "workload": workload.name, "batch": workload.batch}
    write_json(out / "overhead.json", {**values, "cfg": workload.cfg, "rows": rows})
    console.print(overhead_table(found, workload), markup=False, highlight=False)
    console.print(f"{out}: overhead.json")


def run_profile(
    workload: Workload, variants: Sequence[Variant], settings: Settings, out: Path, console: Console
) -> None:
    """Profile partial steps of every variant: tables, ``profile.json`` and a trace for each."""
    clock = clock_for(workload.device)
    found: list[Breakdown] = []
    with compiling():
        able = variants_that_run(variants, workload.device, console)
        for candidate in make_candidates(workload, able, settings):
            with console.status(f"Profiling {candidate.variant.label} ..."):
                own = break_down(candidate, clock, trace_writer(out, candidate.variant))
            console.print(breakdown_table(own), markup=False, highlight=False)
            found.append(own)
    rows = [own.to_dict() for own in found]
    write_json(out / "profile.json", {"machine": machine(workload.device), "workload": workload.name, "rows": rows})
    traces = ", ".join(trace_name(variant) for variant in able)
    console.print(f"{out}: profile.json and, for chrome://tracing or ui.perfetto.dev, {traces}")


def trace_writer(out: Path, variant: Variant) -> Callable[[Any], None]:
    def write(profiled: Any) -> None:
        with replacing(out / trace_name(variant)) as partial:
            profiled.export_chrome_trace(str(partial))

    return write


def trace_name(variant: Variant) -> str:
    kept = [letter if letter.isalnum() or letter in "-." else "-" for letter in variant.label.replace("%", "")]
    return f"trace-{''.join(kept)}.json"


def run_scaling(out: Path, device: torch.device, settings: Settings, console: Console) -> None:
    """Measure how time and memory grow: a table, ``scaling.json`` and ``scaling.png``."""
    with console.status("Measuring decoders of many shapes ..."):
        found = measure_scaling(repeats=max(settings.repeats, 5), device=device)
    write_json(out / "scaling.json", found.to_dict())
    save_scaling(found, out / "scaling.png")
    console.print(scaling_table(found), markup=False, highlight=False)
    console.print(f"{out}: scaling.json, scaling.png")
