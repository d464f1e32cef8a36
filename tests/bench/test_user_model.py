"""Models that a user names."""

from __future__ import annotations

import pytest

from marche_fx.bench import user_workload
from marche_fx.errors import ArgumentError

HERE = "tests.bench.models"


def test_the_steps_of_a_loop_are_recorded() -> None:
    work = user_workload(f"{HERE}:text")
    assert work.name == f"{HERE}:text"
    assert work.parts == {"forward": "forward"}
    assert [own.first for own in work.steps] == list(range(8))
    assert all(len(own.calls) == 1 for own in work.steps)
    assert [own.read for own in work.steps] == [4] * 8
    assert (work.batch, work.cfg, work.has_head, work.in_steps) == (2, None, False, None)
    assert work.is_cut_anywhere


def test_a_mar_with_its_own_loop_has_two_step_methods() -> None:
    work = user_workload(f"{HERE}:garments")
    assert list(work.parts.values()) == ["encoder", "decoder"]
    assert [own.first for own in work.steps] == [0, 2, 4, 6]
    # The decoder is given what the encoder returned, of the same step.
    assert work.is_cut_anywhere


def test_options_are_passed_on() -> None:
    work = user_workload(f"{HERE}:queried")
    assert work.step == "forward"
    assert work.query is not None
    assert [own.read for own in work.steps] == list(range(32, 0, -4))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("models", "named as module:function, got 'models'"),
        ("no_such_module:text", "there is no module 'no_such_module'"),
        (f"{HERE}.none:text", f"importing {HERE}.none raised|there is no module"),
        ("tests.bench.broken_import:text", "importing tests.bench.broken_import raised ModuleNotFoundError"),
        (f"{HERE}:txt", "has no function 'txt'; it has .*text"),
        (f"{HERE}:raises", "calling it raised RuntimeError: no weights"),
        (f"{HERE}:run_raises", "decoding with its run raised ValueError: no prompt"),
        (f"{HERE}:no_step", "run called no step of the model"),
        (f"{HERE}:no_pair", r"must return \(model, run\).*got \(TinyText\)"),
        (f"{HERE}:wrong_options", "must be a dict of step, loop, query"),
    ],
)
def test_what_goes_wrong_names_the_function(spec: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as raised:
        user_workload(spec)
    assert spec in str(raised.value)


def test_the_cause_is_kept() -> None:
    with pytest.raises(ArgumentError) as raised:
        user_workload(f"{HERE}:raises")
    assert isinstance(raised.value.__cause__, RuntimeError)
