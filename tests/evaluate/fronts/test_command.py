"""The command, from its words to its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from marche_fx import ArgumentError
from marche_fx.evaluate import tasks
from marche_fx.evaluate.fronts import command
from marche_fx.evaluate.fronts.command import TASKS, parser, run
from marche_fx.evaluate.fronts.draw import RECIPE
from marche_fx.evaluate.points import parse_point
from marche_fx.models import save_weights
from marche_fx.models.emoji.autoencoder import AUTOENCODER_FILE
from marche_fx.models.emoji.judge import emoji_judge
from marche_fx.models.judge import JUDGE_FILE
from marche_fx.models.train import WEIGHTS_FILE
from marche_fx.saving.locks import held_folder
from tests.evaluate.fronts.small import task
from tests.evaluate.tiny import silent, written
from tests.models.emoji.tiny import EMOJI, tiny_autoencoder, tiny_mar


def call(out: Path, *words: str) -> str:
    """What is printed."""
    console = silent()
    run(parser().parse_args(["--out", str(out), "--device", "cpu", *words]), console)
    return written(console)


def found(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "front.json").read_text())
    return content


SMALL = ("--steps", "4", "--images", "4", "--batch", "2", "--cfg", "2", "--ways", "exact@4", "selective:0.5@4")


def test_it_draws_then_times_then_draws_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "garments", lambda *_: task())
    words = "--task", "garments", *SMALL, "disa@4"
    assert "yet to be drawn" in call(tmp_path, *words, "--time", "--time-batch", "2", "--turns", "2")
    assert not (tmp_path / "front.json").exists()
    assert "exact@4" in call(tmp_path, *words, "--flops")
    rows = found(tmp_path)["rows"]
    assert [row["way"] for row in rows] == ["exact@4", "selective:0.5@4", "disa@4"]
    assert rows[0]["time_ratio"] == 1
    assert all(row["time_ratio"] > 0 and row["flops"] > 0 for row in rows)
    assert found(tmp_path)["time_batch"] == 2
    assert set(rows[0]["over_first"].values()) == {0.0}
    assert (tmp_path / "front.png").exists()
    assert (tmp_path / "disa-steps4.png").exists()


def test_a_front_has_its_folder_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "garments", lambda *_: task())
    with held_folder(tmp_path, "holding"):
        with pytest.raises(ArgumentError, match=r"in use by .* holding since"):
            call(tmp_path, "--task", "garments", *SMALL)
        assert [own.name for own in tmp_path.iterdir()] == [".lock"]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights of tiny models, which the command is told to take for those of emoji."""
    torch.manual_seed(0)
    for file, model in (
        (WEIGHTS_FILE, tiny_mar()),
        (AUTOENCODER_FILE, tiny_autoencoder()),
        (JUDGE_FILE, emoji_judge()),
    ):
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.1)
        save_weights(model, tmp_path / file)
    monkeypatch.setattr(tasks, "load_emoji", lambda _: EMOJI)
    monkeypatch.setattr(tasks, "mar_emoji", tiny_mar)
    monkeypatch.setattr(tasks, "Autoencoder", tiny_autoencoder)
    return tmp_path


def test_emoji_are_drawn_of_the_held_out_labels_and_judged_by_their_groups(weights: Path) -> None:
    call(weights / "out", "--task", "emoji", "--weights", str(weights), "--data", "pictures", *SMALL)
    content = found(weights / "out")
    references = content["references"]
    assert references["pictures_seen"]["estimate"] > 0
    assert 0 <= references["pictures_seen_label_accuracy"] <= 1 >= references["held_out_label_accuracy"] >= 0
    own = tasks.emoji(weights, Path("pictures"), torch.device("cpu"))
    assert own.labels is not None
    assert sorted(own.labels.tolist()) == sorted(EMOJI.held_out.labels.tolist())
    assert own.to_see(own.labels).tolist() == EMOJI.group_of[own.labels].tolist()
    assert all(0 <= row["label_accuracy"] <= 1 for row in content["rows"])


def test_emoji_without_their_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"held-out pictures' labels: give the file .* by --data"):
        call(tmp_path, "--task", "emoji")


def test_the_ways_of_each_task_are_words_and_its_batches_whole() -> None:
    for defaults in TASKS.values():
        assert defaults.images % defaults.batch == 0
        points = [parse_point(word) for word in defaults.ways if not word.startswith(RECIPE)]
        assert points[0].steps == defaults.steps
        assert points[0].policy is None
