import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from marche_fx.cli import app
from marche_fx.models import Judge, load_checkpoint, mar_fashion

from .tiny import tiny_images, write_fashion


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_train_writes_averaged_weights_that_load(tmp_path: Path) -> None:
    write_fashion(tmp_path / "data", "train", tiny_images(32, size=28, classes=10))
    weights = tmp_path / "run" / "model_ema.safetensors"
    output = run("train", "--data", tmp_path / "data", "--out", tmp_path / "run", "--epochs", 1)
    assert str(weights) in output.replace("\n", "")
    state = torch.load(tmp_path / "run" / "training.pt", weights_only=True)["averaged"]
    for name, tensor in load_checkpoint(mar_fashion(), weights).state_dict().items():
        assert torch.equal(tensor, state[f"module.{name}"].half().float())


def test_train_judge_writes_a_judge_and_prints_its_accuracy(tmp_path: Path) -> None:
    for split in ("train", "t10k"):
        write_fashion(tmp_path / "data", split, tiny_images(128, size=28, classes=10))
    output = run("train-judge", "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert "test accuracy 0." in output
    judge = load_checkpoint(Judge(), tmp_path / "run" / "judge.safetensors")
    assert judge.feature_covariance.diagonal().sum() > 0


def test_evaluate_prints_and_writes_a_row_for_each_policy(tmp_path: Path) -> None:
    small = ("--images", 2, "--steps", 2, "--cfg", 1, "--drift-images", 2)
    output = run("evaluate", "--out", tmp_path, "--policy", "exact", "--policy", "exact#2", *small)
    assert "Frechet" in output
    assert "exact over 2 sets of seeds" in output
    rows = json.loads((tmp_path / "evaluation.json").read_text())["rows"]
    assert [row["policy"] for row in rows] == ["exact", "exact#2"]


def test_evaluate_measures_drift_alone(tmp_path: Path) -> None:
    small = ("--steps", 2, "--cfg", 1, "--drift-images", 2)
    output = run("evaluate", "--drift", "--out", tmp_path, "--policy", "exact", *small)
    assert "exact" in output
    assert json.loads((tmp_path / "drift.json").read_text())["rows"][0]["policy"] == "exact"


def test_evaluate_takes_a_denoising_and_an_order(tmp_path: Path) -> None:
    small = ("--images", 2, "--steps", 2, "--cfg", 1, "--drift-images", 2, "--policy", "exact")
    run("evaluate", "--out", tmp_path, *small, "--denoising", "quadratic:4", "--order", "halton")
    settings = json.loads((tmp_path / "evaluation.json").read_text())["settings"]
    assert (settings["denoising"]["spacing"], settings["denoising"]["steps"]) == ("quadratic", 4)
    assert settings["order"] == "halton"
