"""Benchmark variants: times, tables, a picture and JSON in one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch._dynamo.exc import TorchDynamoException

from ..errors import ArgumentError, MarcheError
from ..models import MAR, load_fashion_mar
from ..models.presets import SIZES
from ..saving.files import write_json
from ..speed.clock import Clock, clock_for
from .candidates import Candidate, make_candidates
from .compiler import compiling, why_it_cannot_compile
from .heads import HeadKind, TokenHead
from .lockstep import Entrant, Generation, generate_side_by_side
from .machine import machine
from .plots import save_speedups
from .resume import options
from .rows import Bench, Outcome, Row, rows_of
from .schedule import spread
from .settings import Settings
from .turn import HeadTurn, TransformerTurn
from .variants import UNCOMPILED, Variant
from .warm_up import Preparation, WarmedUp, warm_up
from .workload import Workload, mar_workload


def bench(
    subject: MAR | Workload,
    variants: Sequence[Variant],
    settings: Settings,
    *,
    name: str = "",
    console: Console | None = None,
    shown: Callable[[Bench], None] = lambda _: None,
    known: Bench | None = None,
) -> Bench:
    """Time variants of a model side by side, decoding step by decoding step.

    Args:
        subject: a MAR, whose steps are made as `mar_workload` does for each batch and guidance scale of the settings;
            or a workload, with a batch and a scale of its own.
        name: of the MAR, in the results.
        shown: called with what is known after each batch and guidance scale.
        known: what the same benchmark found of some of these before; they are not measured again.

    Raises:
        ArgumentError: there are no variants, or one needs what the model has not.
    """
    if not variants:
        raise ArgumentError("there is no variant to benchmark")
    console = console or Console()
    found = known or Bench({}, {}, (), ())
    rows = list(found.rows)
    for workload in workloads(subject, settings, name):
        if (workload.batch, workload.cfg) in found.done:
            continue
        with compiling():
            variants = variants_that_run(variants, workload.device, console)
            rows += bench_workload(workload, variants, settings, console)
        timed = spread(len(workload.steps), 1 if settings.all_steps else settings.every)
        found = Bench(machine(workload.device), options(variants, settings), timed, tuple(rows))
        shown(found)
    return found


def workloads(subject: MAR | Workload, settings: Settings, name: str) -> Iterator[Workload]:
    if isinstance(subject, Workload):
        yield subject
        return
    for batch, cfg in product(settings.batch, settings.cfg):
        yield mar_workload(subject, batch, cfg, settings.steps, seed=settings.seed, name=name)


def variants_that_run(variants: Sequence[Variant], device: torch.device, console: Console) -> list[Variant]:
    """The variants, without `torch.compile` where it does not work."""
    if not any(variant.compile for variant in variants):
        return list(variants)
    why = why_it_cannot_compile(device)
    if why is None:
        return list(variants)
    console.print(f"torch.compile does not work here, so everything runs eagerly: {why}", markup=False)
    eager = [variant if not variant.compile else uncompiled(variant) for variant in variants]
    return list({(own.name, own.refresh): own for own in eager if own is not None}.values())


def uncompiled(variant: Variant) -> Variant | None:
    """The variant without `torch.compile`; None for the compiled original, which is there already."""
    return None if variant.is_original else replace(variant, name=variant.name + UNCOMPILED, compile=False)


def bench_workload(
    workload: Workload, variants: Sequence[Variant], settings: Settings, console: Console
) -> Iterable[Row]:
    """The rows of one workload; a transformer or a head that several variants have is timed once."""
    clock = clock_for(workload.device, cpu_time=settings.cpu_time)
    candidates = make_candidates(workload, variants, settings)
    warmed_up = warm_up_all(transformers_of(candidates), clock, console)
    candidates = [own for own in candidates if transformer_of(own, candidates) in warmed_up]
    transformers = {own: entrant_of(own, clock, settings) for own in transformers_of(candidates)}
    heads = head_entrants(candidates, clock, settings)
    for kind, entrant in heads.items():
        with console.status("Warming up the heads ..."):
            warm_up_head(kind, entrant)
    entrants = [*transformers.values(), *heads.values()]
    repeats: list[list[Generation]] = []
    with progress(console) as bar:
        for repeat in range(settings.repeats):
            task = bar.add_task(f"repeat {repeat + 1} of {settings.repeats}", total=1.0)
            repeats.append(generate_side_by_side(entrants, repeat, partial(advance, bar, task)))
            say(console, f"done: repeat {repeat + 1} of {settings.repeats}")
    generations = dict(zip([*transformers, *heads], zip(*repeats, strict=True), strict=True))
    outcomes = []
    for candidate in candidates:
        own = transformer_of(candidate, candidates)
        head = generations.get(head_of(candidate, settings), ())
        outcomes.append(Outcome(candidate, warmed_up[own], generations[own], head))
    return rows_of(outcomes)


def transformers_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first candidate with each transformer."""
    return [own for own in candidates if transformer_of(own, candidates) is own]


def transformer_of(candidate: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    """The first of the candidates whose transformer is the same."""
    return next(own for own in candidates if own.variant.transformer == candidate.variant.transformer)


def warm_up_all(candidates: Sequence[Candidate], clock: Clock, console: Console) -> dict[Candidate, WarmedUp]:
    """Every candidate ready; without a compiled original that cannot be compiled.

    Raises:
        MarcheError: a policy does not fit the model; the message names the variant.
    """
    known: dict[int, Preparation] = {}
    ready = {}
    for candidate in candidates:
        label = candidate.variant.label
        with console.status(f"Capturing and compiling {label} ..."):
            try:
                ready[candidate] = warm_up(candidate, clock, known)
                say(console, f"ready: {label}")
            except MarcheError as error:
                raise type(error)(f"{label}: {error}") from error
            except TorchDynamoException as error:
                if not candidate.variant.is_original:
                    raise
                reason = str(error).strip().splitlines()[0]
                console.print(f"{label} is left out, torch.compile fails on the original: {reason}", markup=False)
    return ready


def entrant_of(candidate: Candidate, clock: Clock, settings: Settings) -> Entrant:
    sampled = spread(candidate.count, settings.every)
    return Entrant(candidate.count, candidate.timed, partial(TransformerTurn, candidate, clock), sampled)


def head_entrants(candidates: Sequence[Candidate], clock: Clock, settings: Settings) -> dict[HeadKind, Entrant]:
    """Heads of the candidates, each once; none where unknown or not asked for."""
    found: dict[HeadKind, Entrant] = {}
    for candidate in candidates:
        workload, count, kind = candidate.workload, candidate.count, head_of(candidate, settings)
        if settings.head and workload.has_head and kind not in found:
            assert isinstance(workload.model, MAR)
            timed = spread(count, 1 if settings.all_steps else settings.every)
            begin = partial(HeadTurn, TokenHead(workload.model, kind), workload, clock, settings.seed)
            found[kind] = Entrant(count, timed, begin, spread(count, settings.every))
    return found


def head_of(candidate: Candidate, settings: Settings) -> HeadKind:
    return HeadKind.of(candidate.variant, candidate.count, settings.denoising)


def warm_up_head(kind: HeadKind, entrant: Entrant) -> None:
    """A head that is captured learns its timesteps in one denoising and expects them in the next."""
    turn = entrant.begin()
    for number in (0,) if kind.choice.reuse is None else (0, entrant.count - 1) * 2:
        turn.step(number)


def progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def say(console: Console, line: str) -> None:
    """A line where no bar moves, so that a run of minutes is seen to go on."""
    if not console.is_terminal:
        console.print(line, markup=False, highlight=False)


def advance(bar: Progress, task: TaskID, done: float) -> None:
    bar.update(task, completed=done)


def sized(size: str, device: torch.device, seed: int) -> MAR:
    """A size of MAR: the bundled weights for ``fashion``, random ones for the others."""
    if size == "fashion":
        return load_fashion_mar().to(device)
    torch.manual_seed(seed)
    with device:
        return SIZES[size]().eval()


def save_bench(found: Bench, out: Path) -> None:
    """Write ``bench.json`` and ``bench.png`` to the folder ``out``."""
    write_json(out / "bench.json", found.to_dict())
    save_speedups(found, out / "bench.png")
