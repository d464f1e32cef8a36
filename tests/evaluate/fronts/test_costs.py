"""FLOPs and times of whole generations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from marche_fx import CheckpointError
from marche_fx.evaluate.fronts.costs import CountedFlops, Times, whole_flops
from marche_fx.evaluate.fronts.draw import ways_of
from marche_fx.evaluate.fronts.measured import FLOPS, Measured
from marche_fx.evaluate.generation import Models
from tests.evaluate.fronts.small import SETTINGS, task


def linears_and_attention(models: Models, word: str) -> float:
    """FLOPs of an image of the original, by hooks at its linears and its attention."""
    found = 0

    def add(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal found
        assert isinstance(module, nn.Linear)
        found += 2 * given[0].numel() * module.out_features

    def add_attention(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal found
        samples, rows, width = given[0].shape
        found += 4 * samples * rows * rows * width

    own = models.model
    hooks = [part.register_forward_hook(add) for part in own.modules() if isinstance(part, nn.Linear)]
    hooks += [part.attn.register_forward_hook(add_attention) for part in (*own.encoder_blocks, *own.decoder_blocks)]
    (way,) = ways_of([word], models.task)
    models.generate(way, models.draws(way, 0).first(2))
    for hook in hooks:
        hook.remove()
    return found / 2


def test_flops_of_the_original_are_those_of_its_linears_and_its_attention() -> None:
    models = Models(task(), SETTINGS)
    for word in ("exact@4", "exact@2"):
        (way,) = ways_of([word], models.task)
        assert whole_flops(models, way) == linears_and_attention(models, word)


def test_flops_of_products_are_counted_once() -> None:
    a, b = torch.rand(2, 3, 4), torch.rand(2, 4, 5)
    with torch.inference_mode(), CountedFlops() as counted:
        _ = (
            a @ b,
            torch.einsum("bij,bjk->bik", a, b),
            torch.bmm(a, b),
            torch.nn.functional.linear(a, torch.rand(7, 4)),
        )
    assert counted.total == 3 * 2 * 2 * 3 * 4 * 5 + 2 * 6 * 4 * 7


def test_what_is_reused_is_not_counted() -> None:
    models = Models(task(), SETTINGS)
    words = "exact@8", "nothing@8", "exact@8+denoising=2", "exact@8+reuse=exact"
    exact, cached, fewer, hoisted = (whole_flops(models, own) for own in ways_of(words, models.task))
    assert max(cached, fewer, hoisted) < exact


def test_times_are_medians_over_turns_of_ratios_within_a_turn() -> None:
    times = Times(8, {"exact@4": [10.0, 20.0, 10.0], "disa@4": [5.0, 5.0, 30.0]})
    assert times.over("exact@4") == {"exact@4": 1.0, "disa@4": 0.5}


def test_what_was_counted_is_kept_and_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, measured = Models(task(), SETTINGS), Measured(tmp_path)
    ways = ways_of(["exact@4", "exact@2"], models.task)
    measured.count_flops(models, ways[:1])
    known = measured.read(FLOPS)
    monkeypatch.setattr("marche_fx.evaluate.fronts.measured.whole_flops", lambda *_: 1.0)
    measured.count_flops(models, ways)
    assert measured.read(FLOPS) == {**known, "exact@2": 1.0}
    (tmp_path / FLOPS).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"is damaged\. Remove it; what it held is then measured again"):
        measured.read(FLOPS)
