"""docs/performance.md: its tables are what its JSON holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "performance"

TABLES = ("base-4", "base-1", "base-8", "whole-1", "whole-8", "whole-8-steps", "large-1", "fashion-1", "fashion-8")
"""Files of benchmarks, in the order of the page."""

MIB = 2**20


def page() -> str:
    return (DOCS / "performance.md").read_text(encoding="utf-8")


def found(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def times(row: dict[str, Any], over: str) -> str:
    """``6.81x (6.75-6.90)``, without the range where nothing was repeated."""
    middle, low, high = (row[f"speedup_vs_{over}{end}"] for end in ("", "_low", "_high"))
    if middle is None:
        return ""
    return f"{middle:.2f}x" + ("" if low == high else f" ({low:.2f}-{high:.2f})")


def label(row: dict[str, Any]) -> str:
    return row["variant"] if row["refresh"] is None else f"{row['variant']} {row['refresh']:.0%}"


def speed_lines(name: str) -> list[str]:
    """Of every variant: how many times faster its transformer and the whole are, and what it took."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found(name)["rows"]:
        rows.setdefault(label(row), {})[row["part"]] = row
    has_head = all("whole" in own for own in rows.values())
    heads = ["variant", "transformer, over eager", "over compiled", "predicted", "FLOPs"]
    heads += ["head, over eager", "whole, over eager", "whole, over compiled"] * has_head
    heads += ["graphs", "compile s", "peak but caches", "caches"]
    lines = [line(*heads), line(*["---"] * len(heads))]
    for name, own in rows.items():
        row = own["transformer"]
        predicted, flops = row["predicted_speedup"], row["flops_ratio"]
        cells = [name, times(row, "eager"), times(row, "compiled")]
        cells += ["" if predicted is None else f"{predicted:.2f}x", "" if flops is None else f"{flops:.3f}"]
        if has_head:
            cells += [times(own["head"], "eager"), times(own["whole"], "eager"), times(own["whole"], "compiled")]
        caches = row["cache_bytes"] or 0
        peak = "" if row["peak_bytes"] is None else f"{(row['peak_bytes'] - caches) / MIB:,.0f} MiB"
        cells += [str(row["compilations"]), f"{row['compile_seconds']:.1f}", peak]
        lines.append(line(*cells, f"{caches / MIB:,.0f} MiB" if caches else ""))
    return lines


def ablation_lines() -> list[str]:
    """Of every ingredient: what it is worth, and what it is."""
    heads = ("ingredient", "alone, over none", "alone, over eager", "all but it, over eager", "last, over all but it")
    lines = [line(*heads, "what it is"), line(*["---"] * 6)]
    values = found("ablation")
    for row in values["rows"]:
        ratios = (row[name] for name in ("alone", "only_vs_eager", "without_vs_eager", "last"))
        lines.append(
            line(row["ingredient"], *(f"{own:.2f}x" for own in ratios), values["ingredients"][row["ingredient"]])
        )
    return lines


def overhead_lines() -> list[str]:
    """Of every variant: the counts of a step."""
    heads = ("a step of", "rows", "operators outside", "compiled calls", "kernels inside", "read by the host")
    lines = [line(*heads, "allocations", "us at width 8"), line(*["---"] * 8)]
    for row in found("overhead")["rows"]:
        counts = ("operators", "compiled_calls", "kernels", "host_reads", "allocations")
        rows = "" if row["rows"] is None else str(row["rows"])
        lines.append(line(row["variant"], rows, *(str(row[name]) for name in counts), f"{row['microseconds']:,.0f}"))
    return lines


def predictions() -> list[tuple[str, float, float]]:
    """Workload and variant, predicted and measured speed-up of the transformer, of everything that was compiled.

    Variants that differ in the head alone share a transformer, which counts once.
    """
    each = {
        (name, row["predicted_speedup"], row["speedup_vs_eager"]): f"{name} {label(row)}"
        for name in TABLES
        for row in reversed(found(name)["rows"])
        if row["part"] == "transformer" and row["predicted_speedup"] is not None
    }
    return [(words, predicted, measured) for (_, predicted, measured), words in each.items()]


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_figures_of_each_benchmark(name: str) -> None:
    assert "\n".join(speed_lines(name)) in page()


def test_the_page_has_the_worth_of_each_ingredient() -> None:
    assert "\n".join(ablation_lines()) in page()


def test_the_page_has_the_counts_of_a_step() -> None:
    assert "\n".join(overhead_lines()) in page()


def test_the_page_tells_how_far_predictions_are_off() -> None:
    off = {name: abs(predicted / measured - 1) for name, predicted, measured in predictions()}
    worst = max(off, key=lambda own: off[own])
    near = sum(own <= 0.25 for own in off.values())
    assert f"{near} of {len(off)} predictions are within 25%" in page()
    assert f"the worst is off by {off[worst]:.0%}" in page()


def test_nothing_was_compiled_while_it_was_timed() -> None:
    assert all(row["timed_compilations"] == 0 for name in TABLES for row in found(name)["rows"])


def test_every_file_that_the_page_names_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page())
    assert len(links) > 5
    for link in links:
        assert link.startswith("https://") or (DOCS / link).exists(), link
