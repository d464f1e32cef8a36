"""A benchmark that was cut off goes on behind what it found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marche_fx.bench import Bench, Settings, bench, parse_variants, save_bench
from marche_fx.bench.resume import cut_off
from tests.evaluate.tiny import silent, tiny_garments

CPU = torch.device("cpu")
SETTINGS = Settings(batch=(1, 2), cfg=(1.0,), steps=4, repeats=1, head=False)
VARIANTS = parse_variants(["eager", "ours:0.1-eager"], ())


class CutOffError(Exception):
    """In place of a kill."""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was written when a benchmark of two batches was cut off behind the first."""
    out = tmp_path_factory.mktemp("half")

    def shown(found: Bench) -> None:
        save_bench(found, out)
        raise CutOffError

    with pytest.raises(CutOffError):
        bench(tiny_garments(), VARIANTS, SETTINGS, name="tiny", console=silent(), shown=shown)
    return out


def test_it_goes_on_with_the_rows_that_it_has(half: Path) -> None:
    known = cut_off(half, VARIANTS, SETTINGS, CPU)
    assert known is not None
    assert known.done == ((1, 1.0),)
    found = bench(tiny_garments(), VARIANTS, SETTINGS, name="tiny", console=silent(), known=known)
    assert found.done == ((1, 1.0), (2, 1.0))
    assert found.rows[: len(known.rows)] == known.rows


def test_other_options_begin_anew(half: Path) -> None:
    others = parse_variants(["eager", "ours:0.2-eager"], ())
    assert cut_off(half, others, SETTINGS, CPU) is None
    assert cut_off(half, VARIANTS, Settings(batch=(1, 2), cfg=(1.0,), steps=5, repeats=1, head=False), CPU) is None


def test_what_is_complete_is_measured_again(half: Path, tmp_path: Path) -> None:
    known = cut_off(half, VARIANTS, SETTINGS, CPU)
    save_bench(bench(tiny_garments(), VARIANTS, SETTINGS, console=silent(), known=known), tmp_path)
    assert cut_off(tmp_path, VARIANTS, SETTINGS, CPU) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": 3}'])
def test_a_file_of_another_kind_begins_anew(tmp_path: Path, content: str) -> None:
    assert cut_off(tmp_path, VARIANTS, SETTINGS, CPU) is None
    (tmp_path / "bench.json").write_text(content)
    assert cut_off(tmp_path, VARIANTS, SETTINGS, CPU) is None
