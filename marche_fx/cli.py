"""The command line: ``marche-fx``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import MarcheError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

Data = Annotated[Path, typer.Option("--data", help="folder of Fashion-MNIST's four IDX files")]
Bf16 = Annotated[bool, typer.Option(help="bfloat16 autocast, twice as fast where the processor has avx512_bf16")]
Steps = Annotated[int, typer.Option(help="decoding steps")]
Guidance = Annotated[float, typer.Option(help="guidance scale")]
Temperature = Annotated[float, typer.Option(help="noise of the diffusion head; less is cleaner and less varied")]
Seed = Annotated[int, typer.Option(help="seed of every random draw")]


def run() -> None:
    """Run the command line; an error that a user can mend is a line, not a traceback."""
    try:
        app()
    except MarcheError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise SystemExit(1) from error


@app.callback()
def main() -> None:
    """Turn a masked transformer's decoding step into one that recomputes active tokens only."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="picture to write")] = Path("demo.png"),
    images: Annotated[int, typer.Option(help="images of each class")] = 4,
    steps: Steps = 32,
    fraction: Annotated[float, typer.Option(help="share of the tokens to refresh in each step, 0..1")] = 0.1,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    compile: Annotated[bool, typer.Option(help="torch.compile the rewritten steps")] = False,
) -> None:
    """Generate garments twice from the same seeds, exactly and with cached tokens; write both side by side."""
    from .demo import run_demo
    from .refresh import SelectiveRefresh

    refresh = SelectiveRefresh(fraction)
    run_demo(
        out,
        per_class=images,
        steps=steps,
        cfg=cfg,
        temperature=temperature,
        seed=seed,
        refresh=refresh,
        compile=compile,
    )


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", help="folder of the run; a run found there goes on")],
    data: Data = Path("/usr/share/datasets/fashion-mnist"),
    epochs: Annotated[float, typer.Option(help="passes over the training images; may grow on resuming")] = 5.6,
    bf16: Bf16 = False,
    compile: Annotated[bool, typer.Option(help="torch.compile the transformer's blocks")] = False,
) -> None:
    """Train the bundled MAR; resumable after a kill at any moment."""
    import torch

    from .models import load_fashion, mar_fashion, save_weights
    from .models.train import WEIGHTS_FILE, Recipe
    from .models.train import train as train_model

    recipe = Recipe(epochs=epochs)
    torch.manual_seed(recipe.seed)
    save_weights(
        train_model(mar_fashion(), load_fashion(data), out, recipe, bf16=bf16, compile=compile), out / WEIGHTS_FILE
    )
    print(f"averaged weights: {out / WEIGHTS_FILE}")


@app.command()
def train_judge(
    out: Annotated[Path, typer.Option("--out", help="folder of the run; a run found there goes on")],
    data: Data = Path("/usr/share/datasets/fashion-mnist"),
    bf16: Bf16 = False,
) -> None:
    """Train the classifier that judges generated garments; print its accuracy on the test set."""
    from .models import load_fashion, save_weights
    from .models.fashion import to_pixels
    from .models.judge import JUDGE_FILE
    from .models.judge import train_judge as train_model

    test = load_fashion(data, "t10k")
    judge = train_model(load_fashion(data), test, out, bf16=bf16)
    save_weights(judge, out / JUDGE_FILE)
    print(f"test accuracy {judge.accuracy(to_pixels(test.images), test.labels):.4f}, weights: {out / JUDGE_FILE}")


@app.command()
def evaluate(
    weights: Annotated[Path | None, typer.Option(help="weights of mar_fashion; the bundled ones when omitted")] = None,
    images: Annotated[int, typer.Option(help="how many images to generate")] = 1000,
    steps: Steps = 32,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    fraction: Annotated[
        float | None,
        typer.Option(help="share of the tokens to refresh in each step, 0..1; the exact model when omitted"),
    ] = None,
) -> None:
    """Judge garments that the bundled MAR generates, exactly or cached: label accuracy and Frechet distance."""
    import torch
    from torch import Tensor

    from .models import load_checkpoint, load_fashion_mar, load_judge, mar_fashion, measure_quality
    from .refresh import SelectiveRefresh
    from .transform import transform

    model = load_checkpoint(mar_fashion(), weights).eval() if weights else load_fashion_mar()
    if fraction is not None:
        model = transform(model, refresh=SelectiveRefresh(fraction), compile=False)

    def sample(labels: Tensor, generator: torch.Generator) -> Tensor:
        return model.sample_tokens(len(labels), steps, cfg, labels=labels, temperature=temperature, generator=generator)

    quality = measure_quality(sample, load_judge(), images, seed=seed, progress=True)
    print(f"label accuracy {quality.accuracy:.3f}, Frechet distance {quality.frechet_distance:.2f}, {images} images")
