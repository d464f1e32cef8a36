import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch

from marche_fx.models import load_checkpoint
from marche_fx.models.fashion import Fashion
from marche_fx.models.tokens import Decoding, command
from marche_fx.models.tokens.choosing import Judged, judge_decodings
from marche_fx.models.tokens.command import choose, first, tile
from tests.models.tiny import tiny_images, write_fashion

from .tiny import tiny_garments


def garments_of_all_classes() -> Fashion:
    return replace(tiny_images(40, size=28), labels=torch.arange(40) % 10)


def test_a_training_from_the_command_line_leaves_weights_a_log_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "t10k"):
        write_fashion(tmp_path / "data", split, garments_of_all_classes())
    asked: list[float] = []

    def briefly(train: Callable[..., None], model: Any, data: Any, seconds: float, *args: Any, **options: Any) -> None:
        asked.append(seconds)
        train(model, data, 1.0, *args, **options)

    monkeypatch.setattr(command, "TokenGarments", tiny_garments)
    for name in ("train_tokenizer", "train_maskgit"):
        monkeypatch.setattr(command, name, partial(briefly, getattr(command, name)))
    monkeypatch.setattr(command, "judge_decodings", partial(judge_decodings, candidates=[Decoding(steps=2)]))
    out = tmp_path / "out"
    given = {"data": tmp_path / "data", "out": out, "minutes": 600, "batch": 4, "device": "cpu", "per-class": 1}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["tokens", *options])
    runpy.run_module("marche_fx.models.tokens", run_name="__main__")

    # 15% and 70% of ten hours, but for what had passed.
    assert asked == [pytest.approx(5_400, rel=0.02), pytest.approx(0.7 / 0.85 * 36_000, rel=0.02)]
    trained = load_checkpoint(tiny_garments(), out / "model_ema.safetensors")
    for own, other in zip(trained.parameters(), tiny_garments().parameters()):
        assert torch.equal(own, own.half().float())
        assert own.shape == other.shape
    assert any(not torch.equal(own, other) for own, other in zip(trained.parameters(), tiny_garments().parameters()))
    log = (out / "training.log").read_text()
    for told in ("600 minutes", "of 12 codes", "after encoding: Frechet", "held out", "Decoding(steps=2,"):
        assert told in log
    # A row of images, one of them after encoding, one generated; ten classes.
    assert matplotlib.image.imread(out / "samples.png").shape[:2] == (3 * 28, 10 * 28)


def test_the_decoding_of_the_smallest_distance_is_chosen_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = [Judged(Decoding(steps=steps), distance, 0.5) for steps, distance in ((1, 3.0), (2, 1.0), (3, 2.0))]
    monkeypatch.setattr(command, "judge_decodings", lambda garments, judge, per_class: iter(judged))
    told: list[str] = []
    assert choose(told.append, tiny_garments(), 1, until=float("inf")) == judged[1]
    assert len(told) == 3
    assert choose(told.append, tiny_garments(), 1, until=0.0) == judged[0]
    assert len(told) == 4


def test_tiles_stand_in_rows() -> None:
    images = torch.arange(6.0)[:, None, None, None].expand(-1, 1, 2, 3)
    found = tile(images, 3)
    assert found.shape == (4, 9)
    assert found[::2, ::3].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_first_images_are_kept_with_their_labels() -> None:
    data = garments_of_all_classes()
    kept = first(data, 3)
    assert torch.equal(kept.images, data.images[:3])
    assert kept.labels.tolist() == [0, 1, 2]
