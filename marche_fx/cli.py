"""The command line: ``marche-fx``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import MarcheError
from .version import __version__

HEADING = "marche_fx: turn a masked transformer's decoding step into one that recomputes active tokens only."

app = typer.Typer(no_args_is_help=True, add_completion=False, help=HEADING, pretty_exceptions_enable=False)

Data = Annotated[Path, typer.Option("--data", help="folder of Fashion-MNIST's four IDX files")]
Bf16 = Annotated[bool, typer.Option(help="bfloat16 autocast, twice as fast where the processor has avx512_bf16")]
Steps = Annotated[int, typer.Option(min=1, help="decoding steps")]
Guidance = Annotated[float, typer.Option(min=1, help="guidance scale; 1 is none")]
Temperature = Annotated[float, typer.Option(min=0, help="noise of the diffusion head; less is cleaner and less varied")]
Weights = Annotated[Path | None, typer.Option(help="weights of mar_fashion; the bundled ones when omitted")]
Seed = Annotated[int, typer.Option(help="seed of every random draw")]
Study = Annotated[Path, typer.Option("--out", help="folder of the study; one found there goes on")]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", help="such as 'default' or 'dLLM-Cache'; may be repeated; all when omitted"),
]
Denoise = Annotated[
    str | None,
    typer.Option(
        "--denoising",
        help="how the head denoises: 25, quadratic:25, dpm++2m:logsnr:14, 50-5 (annealed), disa, or a JSON file; "
        "its own when omitted",
    ),
]
Recipes = Annotated[
    list[str] | None,
    typer.Option("--recipe", help="exact, balanced, fast, or a recipe's JSON file; may be repeated"),
]


def run() -> None:
    """Run the command line; an error that a user can mend is a line, not a traceback."""
    try:
        app()
    except MarcheError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise SystemExit(1) from error


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"marche_fx {__version__}")
        raise typer.Exit


@app.callback(help=HEADING)
def main(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before a command."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="picture to write")] = Path("demo.png"),
    images: Annotated[int, typer.Option(min=1, help="images of each class")] = 4,
    steps: Steps = 32,
    recipe: Recipes = None,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    compile: Annotated[bool, typer.Option(help="torch.compile the rewritten steps")] = False,
) -> None:
    """Generate garments from the same seeds, exactly and by recipes, balanced and fast; write them side by side."""
    from .models.demo import run_demo

    run_demo(
        out,
        per_class=images,
        steps=steps,
        cfg=cfg,
        temperature=temperature,
        seed=seed,
        recipes=recipe or ("balanced", "fast"),
        compile=compile,
    )


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", help="folder of the run; a run found there goes on")],
    data: Data = Path("/usr/share/datasets/fashion-mnist"),
    epochs: Annotated[float, typer.Option(min=0, help="passes over the training images; may grow on resuming")] = 5.6,
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
    compile: Annotated[bool, typer.Option(help="torch.compile the transformer's blocks")] = False,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0, help="after so many the state is written, and the best weights for the part held out"),
    ] = 240.0,
) -> None:
    """Train the bundled text model, and its vocabulary; resumable after a kill at any moment."""
    from .models.text.command import run_training
    from .models.text.recipe import ACCELERATED, Recipe

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


@app.command()
def train_judge(
    out: Annotated[Path, typer.Option("--out", help="folder of the run; a run found there goes on")],
    data: Data = Path("/usr/share/datasets/fashion-mnist"),
    bf16: Bf16 = False,
) -> None:
    """Train the classifier that judges generated garments; print its accuracy on the test set."""
    from .models import load_fashion, save_weights
    from .models.dataset import to_pixels
    from .models.judge import JUDGE_FILE
    from .models.judge import train_judge as train_model

    test = load_fashion(data, "t10k")
    judge = train_model(load_fashion(data), test, out, bf16=bf16)
    save_weights(judge, out / JUDGE_FILE)
    print(f"test accuracy {judge.accuracy(to_pixels(test.images), test.labels):.4f}, weights: {out / JUDGE_FILE}")


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option("--out", help="folder of the evaluation; one found there goes on")],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="exact, nothing, selective:0.1, marche:0.1, random:0.1, oldest:0.1, drift:0.1, neighbour:0.1, "
            "interleaved:2, periodic:8 or a policy's JSON file; @20 behind it for 20 decoding steps, #2 for the second "
            "set of seeds; may be repeated; exact and selective:0.1 when omitted",
        ),
    ] = None,
    recipe: Recipes = None,
    images: Annotated[int, typer.Option(min=2, help="how many images to generate for each policy")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="images generated at once")] = 100,
    steps: Steps = 32,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    drift: Annotated[bool, typer.Option("--drift", help="measure drift alone, without generating images")] = False,
    drift_images: Annotated[int, typer.Option(min=1, help="images on whose decoding drift is measured")] = 20,
    weights: Weights = None,
    denoising: Denoise = None,
    order: Annotated[str, typer.Option(help="of tokens: random, raster, halton or checkerboard")] = "random",
) -> None:
    """Judge garments that the bundled MAR generates under refresh policies; resumable after a kill at any moment.

    Frechet distance with intervals, label accuracy, precision, recall, teacher-forced drift, FLOPs and time.
    """
    from .api.recipes import recipe_for
    from .denoising import parse_denoising
    from .evaluate import DriftSettings, Settings, evaluate_drift, parse_points, recipe_point
    from .evaluate import evaluate as evaluate_points
    from .models.bundled import garment_model

    model = garment_model(weights)
    points = parse_points(policy or (["exact"] if recipe else ["exact", "selective:0.1"]))
    points += [recipe_point(word, recipe_for(model, word)) for word in recipe or ()]
    if drift:
        evaluate_drift(model, points, out, DriftSettings(steps, cfg, temperature, seed, drift_images, order))
    else:
        asked = None if denoising is None else parse_denoising(denoising)
        shared = steps, cfg, temperature, seed, drift_images, order
        evaluate_points(model, points, out, Settings(*shared, images, batch, asked))


@app.command()
def study_text(
    out: Study,
    loop: Annotated[
        list[str] | None,
        typer.Option("--loop", help="low-confidence, random, maskgit or long; may be repeated; all when omitted"),
    ] = None,
    variant: Variants = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="how many to decode; 4 to 16, by the loop, when omitted")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="prompts decoded at once")] = 4,
    choosing: Annotated[
        bool, typer.Option("--choosing", help="take the prompts that policies are chosen by, not those reported")
    ] = False,
    text: Annotated[
        Path | None, typer.Option(help="text that the model has read, for bits per byte under an n-gram model of it")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Compare caches on the bundled text model; resumable after a kill at any moment.

    Pieces that are the original's with the same noise, rows and logits computed, FLOPs, time, perplexity.
    """
    from .evaluate.text.command import run_study
    from .evaluate.text.run import TextSettings

    run_study(out, loop or [], variant or [], prompts, TextSettings(batch, seed, choosing), text)


@app.command()
def study_tokens(
    out: Study,
    loop: Annotated[
        list[str] | None, typer.Option("--loop", help="32-steps or 16-steps; may be repeated; all when omitted")
    ] = None,
    variant: Variants = None,
    images: Annotated[int | None, typer.Option(min=1, help="how many to generate; 100 when omitted")] = None,
    batch: Annotated[int, typer.Option(min=1, help="images generated at once")] = 20,
    seed: Seed = 0,
) -> None:
    """Compare caches on the bundled MaskGIT of garments; resumable after a kill at any moment.

    Codes that are the original's with the same noise, rows and logits computed, FLOPs, time, labels, Frechet distance.
    """
    from .evaluate.study import StudySettings
    from .evaluate.tokens.command import run_study

    run_study(out, loop or [], variant or [], images, StudySettings(batch, seed))


@app.command()
def tune(
    max_drift: Annotated[float, typer.Option(help="bound on the mean drift of the rows read")] = 0.05,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="instead, find a recipe of the whole generation; bound on the Frechet distance over the original's"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="policy or recipe file to write; what was tried goes beside it, and a search that was ended goes on; "
            "policy.json or recipe.json when omitted"
        ),
    ] = None,
    weights: Weights = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="images of a generation; 10 when omitted, or 50 for a recipe")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="generations to judge a recipe by, and as many unseen ones")] = 16,
    steps: Steps = 32,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="time one thread's work, not the wall: for a machine that others use")
    ] = False,
) -> None:
    """Find the cheapest refresh policy whose drift stays within a bound, on the bundled MAR; or a whole recipe."""
    if max_loss is not None:
        from .evaluate.garments import tune_garments
        from .recipes import Recipe

        tune_garments(
            weights,
            Recipe(steps=steps, cfg=cfg, temperature=temperature),
            out or Path("recipe.json"),
            max_loss=max_loss,
            images=images or 50,
            seeds=range(seed, seed + seeds),
            unseen=range(seed + 1000, seed + 1000 + seeds),
            cpu_time=cpu_time,
        )
        return
    import torch
    from rich import print as show
    from torch import nn

    from .models import CLASSES
    from .models.bundled import garment_model
    from .tuning.tune import tune as search

    model = garment_model(weights)

    out, count = out or Path("policy.json"), images or 10

    def run(given: nn.Module, own: int) -> None:
        generator = torch.Generator().manual_seed(own)
        labels = torch.arange(count) % len(CLASSES)
        sample: Any = given.sample_tokens
        sample(count, steps, cfg, labels=labels, temperature=temperature, generator=generator)

    seen, unseen = (seed, seed + 1), (seed + 1000, seed + 1001)
    trials = out.with_suffix(".trials.json")
    found = search(model, run, max_drift, seeds=seen, unseen=unseen, out=trials, progress=True)
    found.save(out)
    show(found)
    print(f"{out}: drift {found.drift:.4f} on unseen seeds at {found.flops_ratio:.3f} of the FLOPs")


@app.command()
def bench(
    size: Annotated[str | None, typer.Option(help="fashion, emoji, base, large or huge; fashion when omitted")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="module:function that returns (model, run), where run(given) decodes once with the given model"
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            help="eager, compiled (the original), fewer:32, disa, emigm (with their heads), ours (at each --refresh), "
            "ours:0.1, recap, lazymar, recipe:fast, or a policy as in evaluate; -eager behind it for no torch.compile, "
            "then +reuse=balanced, +denoising=quadratic:10, +steps=32; may be repeated; eager, compiled, ours, "
            "ours:0.1-eager and half the steps when omitted",
        ),
    ] = None,
    refresh: Annotated[
        list[float] | None,
        typer.Option("--refresh", help="share of the tokens to refresh in each step, 0..1; may be repeated"),
    ] = None,
    batch: Annotated[list[int] | None, typer.Option("--batch", help="images at once; may be repeated")] = None,
    cfg: Annotated[list[float] | None, typer.Option("--cfg", help="guidance scale; may be repeated")] = None,
    steps: Steps = 64,
    every: Annotated[int, typer.Option(help="time what has no state at one step in so many, and integrate")] = 8,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="time everything at all steps")] = False,
    repeats: Annotated[int, typer.Option(help="generations of every variant; the median counts")] = 2,
    head: Annotated[bool, typer.Option(help="time the diffusion head too")] = True,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="time one thread's work, not the wall: for a machine that others use")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="instead show where a partial step's time goes")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="instead show how time and memory grow with tokens, batch, depth, rows")
    ] = False,
    overhead: Annotated[
        bool, typer.Option("--overhead", help="instead count operators, kernels, waits and allocations of a step")
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="compare what each ingredient of a generation is worth")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Seed = 0,
    denoising: Denoise = None,
    recipe: Recipes = None,
    out: Annotated[Path, typer.Option("--out", help="folder for tables as JSON and pictures")] = Path("bench"),
) -> None:
    """Time a generation's steps side by side: the original, its torch.compile, marche_fx, and what one does instead."""
    from .bench import Settings
    from .bench.command import Wanted, run_bench
    from .denoising import parse_denoising

    words = tuple(variant or ()) or (("eager",) if recipe else ())
    own = words + tuple(f"recipe:{word}" for word in recipe or ()), tuple(refresh or ())
    wanted = Wanted(size, model, *own, device, profile, scaling, overhead, ablation)
    run_bench(
        wanted,
        Settings(
            batch=tuple(batch or [4]),
            cfg=tuple(cfg or [3.0]),
            steps=steps,
            every=every,
            all_steps=all_steps,
            repeats=repeats,
            head=head,
            cpu_time=cpu_time,
            seed=seed,
            denoising=None if denoising is None else parse_denoising(denoising),
        ),
        out,
    )
