"""Which of the recipes that were judged is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from marche_fx import Recipe, TunedRecipe, TuningError, load_recipe
from marche_fx.reporting.tables import as_text
from marche_fx.tuning.intervals import Interval
from marche_fx.tuning.tuned_recipe import Outcome


def outcome(steps: int, speedup: float, low: float, high: float) -> Outcome:
    return Outcome(Recipe(steps=steps), speedup, Interval((low + high) / 2, low, high))


SURE, UNSURE, SLOW, WORSE = (
    outcome(1, 4.0, 0.0, 0.2),
    outcome(2, 8.0, -0.5, 0.6),
    outcome(3, 2.0, -0.1, 0.1),
    outcome(4, 3.0, 0.3, 0.5),
)
EVERY = (SURE, UNSURE, SLOW, WORSE)


@pytest.mark.parametrize(("bound", "expected"), [(0.1, SLOW), (0.2, SURE), (0.59, SURE), (0.6, UNSURE)])
def test_it_is_the_fastest_that_is_surely_within_the_bound(bound: float, expected: Outcome) -> None:
    found = TunedRecipe.of(EVERY, bound)
    assert found.recipe == expected.recipe
    assert found.recipe.figures["speedup"] == expected.speedup
    assert TunedRecipe.of(EVERY, 0.6).within(bound) == expected.recipe


def test_none_within_the_bound_is_an_error_that_says_the_least() -> None:
    with pytest.raises(TuningError, match=r"0\.05 at most.* 0\.1\. More seeds"):
        TunedRecipe.of(EVERY, 0.05)
    with pytest.raises(TuningError, match="nan"):
        TunedRecipe.of((), 1.0)


def test_the_front_is_by_time_and_estimate() -> None:
    assert TunedRecipe.of(EVERY, 1.0).front == (UNSURE, SLOW)


def test_it_is_saved_with_its_figures_and_printed(tmp_path: Path) -> None:
    found = TunedRecipe.of(EVERY, 0.2)
    found.save(tmp_path / "own.json")
    saved = load_recipe(tmp_path / "own.json")
    assert saved == SURE.recipe
    assert saved.figures == {"speedup": 4.0, "loss": 0.1, "low": 0.0, "high": 0.2}
    printed = as_text(found)
    assert "+0.000 .. +0.200" in printed
    assert printed.index("8.00x") < printed.index("4.00x") < printed.index("2.00x")
