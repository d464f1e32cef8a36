"""``marche-fx train``, ``train-text`` and ``train-judge``: the bundled models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Bf16, Compile, Data


def train(
    out: Annotated[Path, typer.Option("--out", help="folder of the run; a run found there goes on")],
    data: Data = Path("/usr/share/datasets/fashion-mnist"),
    epochs: Annotated[float, typer.Option(min=0, help="passes over the training images; may grow on resuming")] = 5.6,
    bf16: Bf16 = False,
    compile: Compile = False,
) -> None:
    """Train the bundled MAR; resumable after a kill at any moment."""
    import torch

    from ..models import load_fashion, mar_fashion, save_weights
    from ..models.train import WEIGHTS_FILE, Recipe
    from ..models.train import train as train_model

    recipe = Recipe(epochs=epochs)
    torch.manual_seed(recipe.seed)
    save_weights(
        train_model(mar_fashion(), load_fashion(data), out, recipe, bf16=bf16, compile=compile), out / WEIGHTS_FILE
    )
    print(f"averaged weights: {out / WEIGHTS_FILE}")


def train_text(
    text: Annotated[Path, typer.Option("--text", help="plain text to learn, a sentence or verse a line")],
    out: Annotated[Path, typer.Option("--out", help="folder of the run; a run found there goes on")],
    steps: Annotated[int, typer.Option(min=1, help="steps in all; may change on resuming")] = 10_000,
    decay: Annotated[
        int, typer.Option(min=0, help="last steps in which the learning rate falls to nothing; may change on resuming")
    ] = 2_000,
    minutes: Annotated[float, typer.Option(min=0, help="stop after so many; resume later")] = float("inf"),
    bf16: Bf16 = False,
    device: Annotated[str, typer.Option(help="where to train: cpu, cuda, ..")] = "cpu",
    accelerated: Annotated[
        bool, typer.Option(help="large steps, and a learning rate that falls with --minutes, not --steps and --decay")
    ] = False,
    dropout: Annotated[
        float, typer.Option(min=0, max=1, help="share of what a block adds that is left out in training, 0..1")
    ] = 0.0,
    compile: Compile = False,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0, help="after so many the state is written, and the best weights for the part held out"),
    ] = 240.0,
) -> None:
    """Train the bundled text model, and its vocabulary; resumable after a kill at any moment."""
    from ..models.text.command import run_training
    from ..models.text.recipe import ACCELERATED, Recipe

    recipe = ACCELERATED if accelerated else Recipe(steps=steps, decay=decay)
    run_training(
        text,
        out,
        recipe,
        minutes=minutes,
        bf16=bf16,
        device=device,
        dropout=dropout,
        compile=compile,
        checkpoint_seconds=checkpoint_seconds,
    )


def train_judge(
    out: Annotated[Path, typer.Option("--out", help="folder of the run; a run found there goes on")],
    data: Data = Path("/usr/share/datasets/fashion-mnist"),
    bf16: Bf16 = False,
) -> None:
    """Train the classifier that judges generated garments; print its accuracy on the test set."""
    from ..models import load_fashion, save_weights
    from ..models.dataset import to_pixels
    from ..models.judge import JUDGE_FILE
    from ..models.judge import train_judge as train_model

    test = load_fashion(data, "t10k")
    judge = train_model(load_fashion(data), test, out, bf16=bf16)
    save_weights(judge, out / JUDGE_FILE)
    print(f"test accuracy {judge.accuracy(to_pixels(test.images), test.labels):.4f}, weights: {out / JUDGE_FILE}")
