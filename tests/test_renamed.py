"""Names that go: each old one works, says once what to write instead, and is listed on a page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import marche_fx
from marche_fx.renamed import GOES_IN
from tests.around import X, optimize, transformer

ROOT = Path(__file__).parents[1]


def used() -> torch.nn.Module:
    optimized = optimize(transformer())
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(X)
    return optimized


def told_of(call: Callable[[], object]) -> list[str]:
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(own.category is FutureWarning for own in caught)
    assert all(own.filename == __file__ for own in caught), "the line that calls is named"
    return [str(own.message) for own in caught]


def test_captures_are_saved_and_loaded_by_the_old_names(tmp_path: Path) -> None:
    optimized, again = used(), optimize(transformer())
    assert told_of(lambda: marche_fx.save(optimized, tmp_path / "old")) == [
        f"marche_fx.save is now called marche_fx.save_captures; the old name goes in version {GOES_IN}"
    ]
    used_file: list[bool] = []
    assert told_of(lambda: used_file.append(marche_fx.load(again, tmp_path / "old"))) == [
        f"marche_fx.load is now called marche_fx.load_captures; the old name goes in version {GOES_IN}"
    ]
    assert used_file == [True]


def test_the_share_of_active_tokens_is_taken_by_its_old_name() -> None:
    optimized, model = used(), transformer().eval()
    found: list[marche_fx.Report] = []
    calls: dict[str, Callable[[], object]] = {
        "report": lambda: found.append(marche_fx.report(optimized, fraction=0.5)),  # type: ignore[call-arg]
        "explain": lambda: found.append(marche_fx.explain(model, X, fraction=0.5)),
    }
    for name, call in calls.items():
        assert told_of(call) == [f"fraction= of {name} is now called active=; the old name goes in version {GOES_IN}"]
    expected = (marche_fx.report(optimized, active=0.5), marche_fx.explain(model, X, active=0.5))
    assert [own.steps[0].active for own in found] == [own.steps[0].active for own in expected]
    assert found[0].steps[0].active != marche_fx.report(optimized).steps[0].active


def test_both_names_at_once_are_refused() -> None:
    with pytest.warns(FutureWarning), pytest.raises(marche_fx.ArgumentError, match="active= or fraction=, its old"):
        marche_fx.report(used(), active=0.1, fraction=0.1)  # type: ignore[call-arg]


def test_the_new_names_say_nothing(tmp_path: Path) -> None:
    optimized = used()
    assert not told_of(lambda: marche_fx.save_captures(optimized, tmp_path / "new"))
    assert not told_of(lambda: marche_fx.load_captures(optimize(transformer()), tmp_path / "new"))
    assert not told_of(lambda: marche_fx.report(optimized, active=0.5))


OLD = re.compile(r"marche_fx\.(save|load)\(|\b(report|explain)\([^)]*fraction=")


def test_pages_and_examples_write_the_new_names() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")]
    assert not [own.name for own in pages if OLD.search(own.read_text(encoding="utf-8"))]


def test_the_page_on_versions_lists_what_was_renamed() -> None:
    page = (ROOT / "docs" / "versioning.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| 0\.2 \| (.*?) \| .* \| ([\d.]+) \|$", page, re.MULTILINE)
    assert [own for own, _ in rows] == ["`marche_fx.save`", "`marche_fx.load`", "`fraction=` of `report` and `explain`"]
    assert {until for _, until in rows} == {GOES_IN}


def test_old_names_are_gone_when_their_time_has_come() -> None:
    own, last = (tuple(map(int, version.split(".")[:2])) for version in (marche_fx.__version__, GOES_IN))
    assert own < last
