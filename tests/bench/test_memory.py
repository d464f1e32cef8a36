"""Memory: needed before, and in use while a step runs."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from marche_fx.bench import Settings, parse_variants, resident
from marche_fx.bench.memory import available_bytes, need_of, refuse_what_does_not_fit
from marche_fx.bench.resident import measured_peak
from marche_fx.errors import ArgumentError

CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")


def test_a_size_needs_its_weights_and_the_caches_of_every_session() -> None:
    need = need_of("base", batch=4, cfg=3.0, sessions=2)
    assert need.weights == pytest.approx(207.9e6 * 4, rel=0.01)
    # Keys and values of 24 sites, 8 samples of 320 tokens, width 768, float32.
    assert need.caches == 2 * 24 * 2 * 8 * 320 * 768 * 4
    assert need.total == need.weights + need.caches + need.activations


def test_guidance_doubles_the_caches() -> None:
    assert need_of("fashion", 2, 3.0, 1).caches == 2 * need_of("fashion", 2, 1.0, 1).caches


def test_more_than_is_available_is_refused_with_both_figures() -> None:
    variants = parse_variants(["eager", "ours"], [0.05, 0.1])
    with pytest.raises(
        ArgumentError, match=r"size huge with batch 8 and guidance 3 needs .* GiB .*caches of 2 variants"
    ):
        refuse_what_does_not_fit("huge", variants, Settings(batch=(1, 8)), CPU, available=6 * 2**30)
    refuse_what_does_not_fit("fashion", variants, Settings(batch=(1,)), CPU, available=6 * 2**30)


def test_an_unknown_size_lists_those_that_exist() -> None:
    with pytest.raises(ArgumentError, match="no size 'tiny'; those that exist are fashion, emoji, base, large, huge"):
        refuse_what_does_not_fit("tiny", [], Settings(), CPU)


@on_linux
def test_the_machine_says_what_is_available() -> None:
    found = available_bytes(CPU)
    assert found is not None
    assert found > 2**20


@on_linux
def test_the_peak_is_what_was_held_at_once() -> None:
    size = 32 * 2**20
    with measured_peak(CPU) as peak:
        for _ in range(16):
            torch.ones(size // 4)
    assert peak.bytes is not None
    # One, and the next where the kernel counts what was given back late; never all that were made.
    assert 0.9 * size < peak.bytes < 4 * size


def test_where_there_is_no_high_water_mark_the_peak_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resident, "CLEAR", tmp_path / "missing" / "clear_refs")
    with measured_peak(CPU) as peak:
        pass
    assert peak.bytes is None
