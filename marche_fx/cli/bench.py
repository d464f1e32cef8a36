"""``marche-fx bench``: time, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import CpuTime, Denoise, Recipes, Seed, Steps


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
    cpu_time: CpuTime = False,
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
    from ..bench import Settings
    from ..bench.command import Wanted, run_bench
    from ..denoising import parse_denoising

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
