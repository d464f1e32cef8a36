"""Rows of a benchmark that nobody ran."""

from __future__ import annotations

from marche_fx.bench import Row


def a_row(variant: str, part: str = "whole", seconds: float = 1.0) -> Row:
    return Row(
        workload="base",
        part=part,
        variant=variant,
        refresh=None,
        batch=4,
        cfg=3.0,
        steps=64,
        timed_steps=64,
        seconds=seconds,
        estimated_seconds=seconds,
        speedup_vs_eager=None,
        speedup_vs_eager_low=None,
        speedup_vs_eager_high=None,
        speedup_vs_compiled=None,
        speedup_vs_compiled_low=None,
        speedup_vs_compiled_high=None,
        compilations=0,
        timed_compilations=0,
        compile_seconds=0.0,
        peak_bytes=None,
        cache_bytes=None,
        flops_ratio=None,
        rows_ratio=None,
        predicted_speedup=None,
    )
