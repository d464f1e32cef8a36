"""The demo, small."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from marche_fx import ArgumentError
from marche_fx.models import load_fashion_mar
from marche_fx.models.demo import run_demo


@pytest.mark.slow
def test_the_demo_prints_its_tables_and_writes_a_picture(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), record=True, width=120)
    out = tmp_path / "demo.png"
    run_demo(out, mar=load_fashion_mar(num_sampling_steps=4), per_class=1, steps=8, console=console)
    printed = console.export_text()
    assert "transformer" in printed
    assert "diffusion head" in printed
    assert "images that show their label" in printed
    assert str(out.resolve()) in printed.replace("\n", "")
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("out", "per_class"), [("missing/demo.png", 1), ("demo.png", 0), ("demo.nothing", 1)])
def test_the_demo_refuses_before_it_generates(tmp_path: Path, out: str, per_class: int) -> None:
    with pytest.raises(ArgumentError, match=r"folder|at least one|is saved as"):
        run_demo(tmp_path / out, per_class=per_class)
