"""What a step reads outside of it is noted, and what libraries keep for themselves is not."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import sympy

from marche_fx.passes.capture.surroundings import Surroundings, noted

FACTOR = 3.0


def scaled(value: float) -> float:
    return FACTOR * value


def test_a_global_that_a_function_reads_is_noted() -> None:
    surroundings = Surroundings()
    with noted(surroundings):
        scaled(2.0)
    assert (__name__, "FACTOR") in surroundings.values()


class Holder:
    """Has an attribute of the name of a global, and asks for another by name."""

    FACTOR = 2.0

    def doubled(self, value: float) -> float:
        return self.FACTOR * scaled(value)

    def own(self) -> float:
        return self.FACTOR


def test_a_global_of_the_name_of_an_attribute_is_not_read() -> None:
    alone, both = Surroundings(), Surroundings()
    with noted(alone):
        Holder().own()
    with noted(both):
        Holder().doubled(1.0)
    assert (__name__, "FACTOR") not in alone.values()
    assert (f"class Holder of {__name__}", "FACTOR") in alone.values()
    assert (__name__, "FACTOR") in both.values()


def test_tables_of_a_solver_of_equations_are_not_walked() -> None:
    """As einx solves the sizes of its expressions inside of a model's forward."""
    surroundings = Surroundings()
    x = sympy.Symbol("x")
    with noted(surroundings):
        found = sympy.solve(x - 3, x)
    assert found == [3]
    assert not any("sympy" in title for title, _ in surroundings.values())


def test_a_module_that_is_imported_meanwhile_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_meanwhile.py").write_text("TABLE = [1]\nSIZE = len(TABLE)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    surroundings = Surroundings()
    with noted(surroundings):
        module = __import__("imported_meanwhile")
    assert isinstance(module, types.ModuleType)
    sys.modules.pop("imported_meanwhile")
    assert not any(title == "imported_meanwhile" for title, _ in surroundings.values())
