"""The table that a benchmark prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..reporting.tables import memory
from .ablation import Ablation
from .breakdown import Breakdown
from .largest import largest_batches
from .machine import described
from .overhead import NARROW, Overhead
from .rows import HEAD, TRANSFORMER, WHOLE, Bench, Row
from .scaling import Scaling
from .variants import EAGER
from .workload import Workload


def bench_tables(bench: Bench) -> Iterator[Table | str]:
    """Two tables for each workload, number of images and guidance scale: time, and what it was spent on."""
    groups: dict[tuple[str, int, float | None], list[Row]] = {}
    for row in bench.rows:
        groups.setdefault((row.workload, row.batch, row.cfg), []).append(row)
    for rows in groups.values():
        yield time_table(rows)
        yield work_table([row for row in rows if row.part == TRANSFORMER])
        yield caption(bench, rows)
    for found in largest_batches(bench):
        if found.variant != EAGER:
            yield (
                f"{found.workload}: in the memory that {EAGER} takes for batch {found.original} "
                f"({memory(found.bytes)} beside the weights), {found.variant} takes batch {found.batch}."
            )


def time_table(rows: Sequence[Row]) -> Table:
    """A row for each variant: seconds of each part of a generation, and how many times faster than the original."""
    parts = list(dict.fromkeys(row.part for row in rows))
    if len([part for part in parts if part not in (TRANSFORMER, HEAD, WHOLE)]) == 1:
        # The one step method is all of the transformer.
        del parts[0]
    table = plain_table("variant", title=title(rows[0]))
    has_spread = any(row.speedup_vs_eager_low != row.speedup_vs_eager_high for row in rows)
    for part in parts:
        table.add_column(f"{part}\nseconds", justify="right", no_wrap=True)
        if part in (TRANSFORMER, WHOLE):
            table.add_column("x eager\n", justify="right", no_wrap=True)
            if part == TRANSFORMER and has_spread:
                table.add_column("low-high\n", justify="right", no_wrap=True)
            table.add_column("x comp.\n", justify="right", no_wrap=True)
    for name in dict.fromkeys(row.label for row in rows):
        own = {row.part: row for row in rows if row.label == name}
        cells = [name]
        for part in parts:
            row = own[part]
            cells.append(seconds(row.seconds))
            if part in (TRANSFORMER, WHOLE):
                cells.append(times(row.speedup_vs_eager))
                if part == TRANSFORMER and has_spread:
                    cells.append(span(row.speedup_vs_eager_low, row.speedup_vs_eager_high))
                cells.append(times(row.speedup_vs_compiled))
        table.add_row(*cells)
    return table


def work_table(rows: Sequence[Row]) -> Table:
    """A row for each variant: what its transformer computes, and what it took to compile and to hold."""
    table = plain_table("variant")
    headings = ("FLOPs\nratio", "rows\nratio", "x eager\npredicted")
    for heading in (*headings, "graphs\n", "compile\nseconds", "peak\nmemory", "caches\n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        sizes = ["" if size is None else memory(size) for size in (row.peak_bytes, row.cache_bytes)]
        seconds = f"{row.compile_seconds:.1f}"
        work = share(row.flops_ratio), share(row.rows_ratio), times(row.predicted_speedup)
        table.add_row(row.label, *work, graphs(row), seconds, *sizes)
    return table


def plain_table(first: str, title: str | None = None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    return table


def breakdown_table(found: Breakdown) -> Table:
    """What a partial step does, in its order: milliseconds in each part of the model, and the share of all."""
    rows = ", ".join(f"{count:,} rows in the {part}" for part, count in found.rows.items())
    table = plain_table("milliseconds of a step", title=f"{found.variant}: a partial step\n{rows}")
    for heading in (*found.milliseconds, "all", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    whole = found.profiled
    for what in next(iter(found.milliseconds.values())):
        own = [spent[what] for spent in found.milliseconds.values()]
        table.add_row(what, *(f"{each:.2f}" for each in (*own, sum(own))), f"{sum(own) / whole:.1%}")
    sums = [sum(spent.values()) for spent in found.milliseconds.values()]
    table.add_row("all", *(f"{each:.2f}" for each in (*sums, whole)), "", style="bold")
    table.add_row("all, without the profiler", *[""] * len(sums), f"{found.unprofiled:.2f}", "")
    return table


def overhead_table(found: Sequence[Overhead], workload: Workload) -> Table:
    """A row for each variant: what a step costs beside its arithmetic."""
    guidance = "" if workload.cfg is None else ", no guidance" if workload.cfg == 1 else f", guidance {workload.cfg:g}"
    table = plain_table("a step of", title=f"{workload.name}, batch {workload.batch}{guidance}")
    headings = ("rows\n", "operators\noutside", "compiled\ncalls", "kernels\ninside", "read by\nthe host")
    for heading in (*headings, "allocations\n", "launches\n", "waits\n", f"us at\nwidth {NARROW}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for own in found:
        counted = (own.operators, own.compiled_calls, own.kernels, own.host_reads, own.allocations)
        time = "" if own.microseconds is None else f"{own.microseconds:,.0f}"
        rows = "" if own.rows is None else f"{own.rows:,}"
        table.add_row(own.variant, rows, *map(str, (*counted, own.launches, own.waits)), time)
    return table


def ablation_table(found: Ablation) -> Table:
    """A row for each ingredient: what it is worth alone, and what all others are worth without it."""
    table = plain_table("ingredient", title="A whole generation: times less time with an ingredient")
    headings = ("alone,\nx none", "alone,\nx eager", "all but it,\nx eager", "last,\nx all but it")
    for heading in ("batch\n", "guidance\n", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for own in found.rows:
        ratios = (own.alone, own.only_vs_eager, own.without_vs_eager, own.last)
        table.add_row(own.ingredient, str(own.batch), f"{own.cfg:g}", *map(times, ratios))
    return table


def scaling_table(found: Scaling) -> Table:
    """What the fitted cost model says of a partial and of a full step."""
    table = plain_table("step", title="time = fixed per block + rows x weights + rows x tokens + tokens")
    headings = ("us for a\nblock", "rows x weights\nGFLOP/s", "rows x tokens\nGFLOP/s", "tokens x width\nns each")
    for heading in (*headings, "mean\nerror", "highest\nerror"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, fit in found.fits.items():
        own = fit.coefficients
        rates = [f"{2e-9 / own[term]:.1f}" if own[term] else "free" for term in ("rows x weights", "rows x tokens")]
        fixed, every = f"{own['blocks'] * 1e6:.0f}", f"{own['tokens'] * 1e9:.2f}"
        table.add_row(kind, fixed, *rates, every, f"{fit.error:.1%}", f"{fit.worst:.1%}")
    return table


def title(row: Row) -> str:
    guidance = "" if row.cfg is None else ", no guidance" if row.cfg == 1 else f", guidance {row.cfg:g}"
    return f"{row.workload}, batch {row.batch}{guidance}, {row.steps} decoding steps"


def caption(bench: Bench, rows: Sequence[Row]) -> str:
    """Where and how it was measured, and how far the ratios differ between repeats."""
    repeats = bench.settings["repeats"]
    clock = ", processor time" if bench.settings["cpu_time"] else ""
    lines = [f"{described(bench.machine)}; {repeats} repeat{'s' * (repeats != 1)}, variants side by side{clock}."]
    sampled = [row for row in rows if row.timed_steps < row.steps]
    if sampled:
        names = ", ".join(dict.fromkeys(row.label for row in sampled))
        every = bench.settings["every"]
        lines.append(f"Timed at one step in {every} and integrated: {names}. The others at all steps.")
    else:
        lines.append(f"All steps timed. {estimation(bench, rows)}")
    spread = [
        row.speedup_vs_eager_high / row.speedup_vs_eager_low - 1
        for row in rows
        if row.part == TRANSFORMER and row.speedup_vs_eager_low and row.speedup_vs_eager_high
    ]
    if spread and repeats > 1:
        lines.append(f"x eager of the transformer differs by up to {max(spread):.0%} between repeats.")
    return "\n".join(lines)


def estimation(bench: Bench, rows: Sequence[Row]) -> str:
    """How far one step in so many would have been off, of the first variant's transformer: it has no state."""
    row = next(row for row in rows if row.part == TRANSFORMER)
    off = row.estimated_seconds / row.seconds - 1
    return f"One step in {bench.settings['every']} would have given {off:+.1%} for {row.label}."


def seconds(number: float) -> str:
    """Three digits at least."""
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}"


def span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.2f}-{high:.2f}"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def share(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def graphs(row: Row) -> Text:
    """Graphs compiled; those while it was timed stand out."""
    text = Text(str(row.compilations))
    return text.append(f" + {row.timed_compilations}", "bold red") if row.timed_compilations else text
