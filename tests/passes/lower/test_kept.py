"""What was compiled is found by what it computes, and there is no more of it than there is room for."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx.passes.lower import compiled
from marche_fx.passes.lower.compiled import Compiled
from marche_fx.passes.lower.conditions import Conditions
from marche_fx.passes.lower.kept import KeptCode, Stored
from marche_fx.passes.lower.standalone import Code
from marche_fx.reporting import dropped
from tests.around import transformer
from tests.passes.lower.test_standalone import ROWS, inputs, layer


class Own:
    """Code that tells when it is freed."""

    def __call__(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


def of(rows: int) -> list[Tensor]:
    return [torch.zeros(rows, 3)]


def code(rows: int) -> Code:
    return Code(Own(), Conditions.of(of(rows), [], []))


def rows_kept(kept: KeptCode, key: str = "key") -> list[int]:
    return [rows for rows in range(2, 9) if kept.find(key, of(rows)) is not None]


def test_of_shapes_that_vary_those_go_that_were_not_asked_for_longest() -> None:
    kept = KeptCode(most=3)
    freed = []
    for rows in (2, 3, 4):
        own = kept.add("key", code(rows))
        freed.append(weakref.ref(own.run))
        del own
    assert kept.find("key", of(2)) is not None
    kept.add("key", code(5))
    gc.collect()
    assert [own() is None for own in freed] == [False, True, False]
    assert rows_kept(kept) == [2, 4, 5]
    kept.add("another", code(2))
    assert rows_kept(kept) == [4, 5], "the bound is on all, whatever they compute"
    assert rows_kept(kept, "another") == [2]
    assert (len([*kept]), kept.dropped) == (3, 2)


def test_a_key_of_which_nothing_is_left_is_forgotten() -> None:
    kept = KeptCode(most=2)
    for number in range(5):
        kept.add(str(number), code(2))
    assert [*kept.known] == ["3", "4"]


def test_what_another_process_compiled_counts_and_is_taken_once() -> None:
    kept = KeptCode(most=3)
    stored = [Stored("key", code(rows).conditions, b"") for rows in (2, 3)]
    for _ in range(3):
        kept.restore(stored)
    assert len([*kept]) == 2
    kept.add("key", code(4))
    kept.restore([Stored("key", code(4).conditions, b""), Stored("key", code(5).conditions, b"")])
    assert [own.conditions for own in kept] == [code(rows).conditions for rows in (3, 4, 5)]


@torch.no_grad()
def test_what_is_dropped_stays_where_it_runs_and_is_compiled_again_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    own = KeptCode(most=1)
    monkeypatch.setattr(compiled, "KEPT", own)
    module = Compiled(layer(), ROWS)
    first, second = inputs(4), inputs(4, dtype=torch.float64)
    expected = module(*first)
    module(*second)
    assert (own.count, own.dropped) == (2, 1)
    assert all(torch.equal(one, other) for one, other in zip(module(*first), expected))
    assert own.count == 2, "the module has its code still"
    Compiled(layer(), ROWS)(*second)
    assert own.count == 2, "and another finds what is kept"
    Compiled(layer(), ROWS)(*first)
    assert own.count == 3


def test_reports_tell_of_what_this_process_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    optimized = marche_fx.transform(transformer(), compile=False)
    own = KeptCode(most=1)
    monkeypatch.setattr(dropped, "KEPT", own)
    own.add("key", code(2))
    assert not any("dropped" in note for note in marche_fx.report(optimized).notes)
    own.add("key", code(3))
    assert any(
        note.startswith("1 compiled part of this process dropped for others, since it keeps 1;")
        for note in marche_fx.report(optimized).notes
    )
