"""``marche-fx sample``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marche_fx import ArgumentError, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.cli import run
from marche_fx.denoising import parse_denoising
from marche_fx.sampling.bundled import bundled_subject
from marche_fx.sampling.command import Wanted, labels_from, subject_of, transformed

CPU = torch.device("cpu")


def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """What the command prints."""
    monkeypatch.setattr(sys, "argv", ["marche-fx", "sample", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run()
    assert not ended.value.code
    return capsys.readouterr().out


def test_garments_are_sampled_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--count", 3, "--batch", 2, "--out", tmp_path, "--steps", 2, "--adm")
    printed = told(capsys, monkeypatch, *options)
    assert "3 images, 3 of them made now" in printed
    assert "Frechet distance from the test set" in printed
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found["settings"] == {"steps": 2, "cfg": 3.0, "temperature": 0.8}
    assert np.load(tmp_path / "samples_3x28x28x3.npz")["arr_0"].std() > 10
    assert "0 of them made now" in told(capsys, monkeypatch, *options)


def test_a_model_of_the_users_own_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("--model", "tests.sampling.tiny:flat_model", "--labels", "6,0", "--device", "cpu")
    told(capsys, monkeypatch, "--count", 5, "--out", tmp_path, *own)
    shown = [np.asarray(Image.open(path)).item(0) for path in sorted((tmp_path / "images").iterdir())]
    assert shown == [237, 128, 237, 128, 237]


def test_a_recipe_says_what_is_not_said_beside_it() -> None:
    found = bundled_subject("fashion", None, "fast", {"cfg": 2.0}, CPU)
    recipe = found.options["recipe"]
    assert found.settings == {"steps": 32, "temperature": 0.8} | recipe.told | {"cfg": 2.0}
    assert recipe.steps not in (32, None), "so that it is the recipe's"


def test_without_policy_and_recipe_the_original_is_sampled() -> None:
    wanted = Wanted(device="cpu")
    subject = subject_of(wanted)
    assert transformed(subject, wanted) is subject.model


def test_a_policy_is_what_the_model_is_transformed_with() -> None:
    wanted = Wanted(policy="selective:0.2", denoising="quadratic:25", device="cpu")
    optimization = optimization_of(transformed(subject_of(wanted), wanted))
    assert {*optimization.settings.policies.values()} == {SelectiveRefresh(0.2)}
    assert optimization.denoising == parse_denoising("quadratic:25")


def test_labels_are_those_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("3\n1\n2\n")
    assert labels_from(str(tmp_path / "labels.txt"), 3) == [3, 1, 2]
    assert labels_from("none", 3) is None
    for word in ("missing", "3,", str(tmp_path)):
        with pytest.raises(ArgumentError, match="labels must be balanced"):
            labels_from(word, 3)
