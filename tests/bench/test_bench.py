"""Whole benchmarks: rows, ratios, tables, pictures, JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from marche_fx import Denoising
from marche_fx.bench import Bench, Row, Settings, bench, bench_tables, parse_variants, save_bench, user_workload
from marche_fx.bench.candidates import make_candidates
from marche_fx.bench.rows import Ratio
from marche_fx.bench.run import head_entrants, head_of
from marche_fx.bench.workload import mar_workload
from marche_fx.errors import ArgumentError, UnsupportedModelError
from marche_fx.speed.clock import clock_for
from tests.evaluate.tiny import silent, tiny_garments, written

WORDS = ("eager", "ours-eager", "recap-eager", "lazymar-eager", "fewer:3")
COLUMNS = {
    *("part", "variant", "refresh", "batch", "cfg", "seconds", "speedup_vs_eager", "speedup_vs_eager_low"),
    *("speedup_vs_eager_high", "speedup_vs_compiled", "speedup_vs_compiled_low", "speedup_vs_compiled_high"),
    *("compilations", "compile_seconds", "peak_bytes", "cache_bytes", "flops_ratio", "rows_ratio"),
}


@pytest.fixture(scope="module")
def found() -> Bench:
    """A tiny MAR with enough sites for LazyMAR's schedule."""
    settings = Settings(batch=(2,), cfg=(3.0,), steps=6, every=2, repeats=2)
    mar = tiny_garments(decoder_depth=4)
    return bench(mar, parse_variants(WORDS, [0.1, 1.0]), settings, name="tiny", console=silent())


def row(found: Bench, variant: str, part: str = "transformer", refresh: float | None = None) -> Row:
    (own,) = (own for own in found.rows if (own.variant, own.part, own.refresh) == (variant, part, refresh))
    return own


def test_every_variant_has_a_row_of_every_part(found: Bench) -> None:
    parts = ["encoder", "decoder", "transformer", "head", "whole"]
    assert [own.part for own in found.rows] == parts * 6
    labels = ["eager", "ours-eager 10%", "ours-eager 100%", "recap-eager", "lazymar-eager", "fewer:3"]
    assert list(dict.fromkeys(own.label for own in found.rows)) == labels


def test_parts_add_up(found: Bench) -> None:
    for own in (row(found, "eager"), row(found, "recap-eager")):
        parts = {part: row(found, own.variant, part).seconds for part in ("encoder", "decoder", "head", "whole")}
        assert own.seconds == pytest.approx(parts["encoder"] + parts["decoder"])
        assert parts["whole"] == pytest.approx(own.seconds + parts["head"])


def test_the_head_is_shared_but_for_other_numbers_of_steps(found: Bench) -> None:
    assert row(found, "eager", "head").seconds == row(found, "ours-eager", "head", 0.1).seconds
    assert row(found, "eager", "head").seconds != row(found, "fewer:3", "head").seconds


def test_a_speedup_is_predicted_of_what_is_not_the_original(found: Bench) -> None:
    for own in found.rows:
        is_predicted = own.part in ("encoder", "decoder", "transformer") and own.variant not in ("eager", "fewer:3")
        assert (own.predicted_speedup is not None) == is_predicted
        assert own.predicted_speedup is None or own.predicted_speedup > 0


def test_a_compiled_model_has_a_head_of_its_own() -> None:
    workload = mar_workload(tiny_garments(), 1, 1.0, 3)
    settings = Settings(steps=3)
    candidates = make_candidates(
        workload, parse_variants(["eager", "compiled", "ours", "ours:0.1-eager"], [0.1, 1.0]), settings
    )
    heads = [head_of(candidate, settings) for candidate in candidates]
    assert heads[0] == heads[1] == heads[4]
    assert heads[2] == heads[3] != heads[0]
    assert list(head_entrants(candidates, clock_for(workload.device), settings)) == [heads[0], heads[2]]


def test_heads_of_transformed_models_denoise_as_the_settings_say() -> None:
    workload = mar_workload(tiny_garments(), 1, 1.0, 3)
    settings = Settings(steps=3, all_steps=True, denoising=Denoising(anneal=(5, 2)))
    candidates = make_candidates(workload, parse_variants(["eager", "ours:0.1-eager"], []), settings)
    evaluations: list[int] = []
    hook = workload.model.get_submodule("diffloss.net.time_embed").register_forward_pre_hook(
        lambda *_: evaluations.append(evaluations.pop() + 1)
    )
    for entrant in head_entrants(candidates, clock_for(workload.device), settings).values():
        with entrant.begin() as turn:
            for number in range(3):
                evaluations.append(0)
                turn.step(number)
    hook.remove()
    assert evaluations == [5, 5, 5, 5, 4, 2]


def test_ratios_are_over_the_original_of_the_same_repeat(found: Bench) -> None:
    eager = row(found, "eager")
    assert (eager.speedup_vs_eager, eager.speedup_vs_eager_low, eager.speedup_vs_eager_high) == (1.0, 1.0, 1.0)
    own = row(found, "recap-eager")
    assert own.speedup_vs_eager_low is not None
    assert own.speedup_vs_eager_high is not None
    assert own.speedup_vs_eager_low <= (own.speedup_vs_eager or 0) <= own.speedup_vs_eager_high
    assert own.speedup_vs_compiled is None
    assert Ratio.of([4.0, 6.0, 9.0], [2.0, 2.0, 1.0]) == Ratio(3.0, 2.0, 9.0)


def test_shares_say_what_was_computed(found: Bench) -> None:
    assert row(found, "eager").rows_ratio == 1
    assert row(found, "ours-eager", refresh=1.0).rows_ratio == 1
    for variant, refresh in (("ours-eager", 0.1), ("recap-eager", None)):
        own = row(found, variant, refresh=refresh)
        assert own.rows_ratio is not None
        assert own.flops_ratio is not None
        assert 0 < own.rows_ratio <= 1
    ours = row(found, "ours-eager", refresh=0.1)
    assert ours.rows_ratio is not None
    assert ours.rows_ratio < 1
    # Each of half the steps has all of the decoder's rows; the encoder's grow in both.
    assert row(found, "fewer:3", "decoder").rows_ratio == 0.5
    assert row(found, "fewer:3", "decoder").flops_ratio == pytest.approx(0.5)
    assert row(found, "eager", "whole").flops_ratio is None


def test_it_says_at_which_steps_was_timed(found: Bench) -> None:
    assert found.timed_steps == (0, 2, 4, 5)
    assert (row(found, "eager").steps, row(found, "eager").timed_steps) == (6, 4)
    assert (row(found, "ours-eager", refresh=0.1).timed_steps, row(found, "fewer:3").timed_steps) == (6, 2)


def test_only_sessions_have_caches(found: Bench) -> None:
    assert row(found, "eager").cache_bytes is None
    assert (row(found, "ours-eager", refresh=0.1).cache_bytes or 0) > 0
    assert all(own.compilations == own.timed_compilations == 0 for own in found.rows)


def test_json_holds_everything_and_comes_back(found: Bench, tmp_path: Path) -> None:
    save_bench(found, tmp_path)
    values = json.loads((tmp_path / "bench.json").read_text())
    assert set(values["rows"][0]) >= COLUMNS
    assert values["machine"]["threads"] >= 1
    assert values["settings"]["repeats"] == 2
    assert values["settings"]["variants"][0] == "eager"
    assert Bench.from_dict(values) == found
    assert (tmp_path / "bench.png").stat().st_size > 10_000


def test_the_tables_say_how_it_was_measured(found: Bench) -> None:
    console = silent()
    for part in bench_tables(found):
        console.print(part, markup=False)
    text = written(console)
    assert "tiny, batch 2, guidance 3, 6 decoding steps" in text
    assert "Timed at one step in 2 and integrated: eager, ours-eager 100%, fewer:3. The others at all steps." in text
    assert "thread" in text
    # Nothing is cut off at 120 columns.
    assert "…" not in text


def test_long_figures_fit_the_table(found: Bench) -> None:
    console = silent()
    rows = [
        replace(
            own, seconds=12_345.6, speedup_vs_eager_low=10.404, speedup_vs_eager_high=12.3, speedup_vs_compiled=11.0
        )
        for own in found.rows
    ]
    for part in bench_tables(replace(found, rows=tuple(rows))):
        console.print(part)
    text = written(console)
    assert "12,346" in text
    assert "10.40-12.30" in text
    assert "…" not in text


def test_graphs_compiled_while_it_was_timed_stand_out(found: Bench) -> None:
    console = silent()
    rows = tuple(replace(own, compilations=2, timed_compilations=7) for own in found.rows)
    for part in bench_tables(replace(found, rows=rows)):
        console.print(part)
    assert "2 + 7" in written(console)


def test_every_batch_and_guidance_scale_is_run_and_all_steps_are_said_to_be_timed() -> None:
    settings = Settings(batch=(1, 2), cfg=(1.0, 3.0), steps=3, all_steps=True, repeats=1, head=False)
    found = bench(tiny_garments(), parse_variants(["eager"], []), settings, console=silent())
    assert found.timed_steps == (0, 1, 2)
    assert [own.part for own in found.rows] == ["encoder", "decoder", "transformer"] * 4
    assert [(own.batch, own.cfg) for own in found.rows[::3]] == [(1, 1.0), (1, 3.0), (2, 1.0), (2, 3.0)]
    console = silent()
    for part in bench_tables(found):
        console.print(part, markup=False)
    text = written(console)
    assert "All steps timed. One step in 8 would have given " in text
    assert "MAR, batch 2, no guidance, 3 decoding steps" in text


def test_a_users_model_is_benchmarked_by_its_step_methods() -> None:
    work = user_workload("tests.bench.models:text")
    variants = parse_variants(["eager", "ours-eager"], [0.1])
    found = bench(work, variants, Settings(repeats=1), console=silent())
    assert [(own.part, own.label) for own in found.rows] == [
        *(("forward", "eager"), ("transformer", "eager")),
        *(("forward", "ours-eager 10%"), ("transformer", "ours-eager 10%")),
    ]
    assert found.rows[0].workload == "tests.bench.models:text"
    assert (found.rows[-1].rows_ratio or 1) < 1


def test_a_policy_that_does_not_fit_names_the_variant() -> None:
    settings = Settings(batch=(1,), cfg=(1.0,), steps=3, repeats=1)
    with pytest.raises((ArgumentError, UnsupportedModelError), match="lazymar-eager: "):
        bench(tiny_garments(), parse_variants(["lazymar-eager"], []), settings, console=silent())


def test_work_of_one_thread_can_be_timed_instead_of_the_wall() -> None:
    settings = Settings(batch=(1,), cfg=(1.0,), steps=3, repeats=1, head=False, cpu_time=True)
    found = bench(tiny_garments(), parse_variants(["eager"], []), settings, console=silent())
    assert found.settings["cpu_time"]
    console = silent()
    for part in bench_tables(found):
        console.print(part)
    assert "processor time" in written(console)


def test_no_variant_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no variant"):
        bench(tiny_garments(), [], Settings(), console=silent())
