"""The largest batch within the original's memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marche_fx.bench import Bench, Row, bench_tables
from marche_fx.bench.largest import largest_batches, largest_within
from tests.bench.rows import a_row

measured = st.dictionaries(st.integers(1, 64), st.integers(1, 10**6), min_size=1, max_size=5)


def rows(variant: str, peaks: dict[int, int], cfg: float = 3.0) -> list[Row]:
    return [
        replace(a_row(variant, "transformer"), batch=batch, cfg=cfg, peak_bytes=own) for batch, own in peaks.items()
    ]


def test_a_variant_with_caches_takes_fewer_images_in_the_same_memory() -> None:
    both = [*rows("eager", {2: 200, 4: 300, 8: 500}), *rows("ours", {2: 300, 4: 450, 8: 900})]
    found = {own.variant: own for own in largest_batches(Bench({}, {}, (), tuple(both)))}
    assert (found["eager"].batch, found["ours"].batch) == (8, 4)
    assert (found["ours"].original, found["ours"].bytes) == (8, 500)


def test_one_batch_says_nothing() -> None:
    both = (*rows("eager", {4: 300}), *rows("ours", {4: 200}))
    assert list(largest_batches(Bench({}, {}, (), both))) == []


def test_other_guidance_scales_are_apart() -> None:
    both = [*rows("eager", {1: 100, 8: 500}, cfg=1.0), *rows("eager", {1: 200, 4: 700})]
    assert [(own.cfg, own.original) for own in largest_batches(Bench({}, {}, (), tuple(both)))] == [(1.0, 8), (3.0, 4)]


@given(measured=measured, limit=st.integers(0, 10**6))
@example(measured={1: 500, 2: 100, 3: 900}, limit=300)
@example(measured={1: 100, 4: 400}, limit=399)
def test_the_answer_is_the_last_batch_below_the_line(measured: dict[int, int], limit: int) -> None:
    batches = sorted(measured)

    def needed(batch: int) -> float:
        most = {own: max(measured[other] for other in batches if other <= own) for own in batches}
        left = max(own for own in batches if own <= batch)
        right = min(own for own in batches if own >= batch)
        share = 0 if left == right else (batch - left) / (right - left)
        return most[left] + share * (most[right] - most[left])

    fitting = [own for own in range(batches[0], batches[-1] + 1) if needed(own) <= limit + 1e-6]
    found = largest_within(limit, measured)
    assert found == (max(fitting) if fitting else 0) or needed(found) == pytest.approx(limit)


def test_the_tables_tell_it() -> None:
    settings = {"repeats": 1, "cpu_time": False, "every": 8}
    machine = {"processor": "p", "device": "cpu", "threads": 1, "torch": "2", "python": "3", "marche_fx": "0"}
    both = (*rows("eager", {1: 100 << 20, 8: 500 << 20}), *rows("ours", {1: 300 << 20, 8: 900 << 20}))
    parts = [own for own in bench_tables(Bench(machine, settings, (), both)) if isinstance(own, str)]
    assert "in the memory that eager takes for batch 8 (500 MiB beside the weights), ours takes batch 3." in parts[-1]
