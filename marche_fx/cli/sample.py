"""``marche-fx sample``: any number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Compile, Denoise, Seed, Weights


def sample(
    count: Annotated[int, typer.Option("--count", min=1, help="how many images")],
    out: Annotated[Path, typer.Option("--out", help="folder of the images; a run found there goes on")],
    labels: Annotated[
        str, typer.Option(help="balanced, none, numbers in turn such as 3,7, or a file with a number a line")
    ] = "balanced",
    model: Annotated[
        str,
        typer.Option(
            help="fashion, emoji, or module:function that returns (model, generate), where generate(model, share) "
            "makes the images of a share"
        ),
    ] = "fashion",
    recipe: Annotated[str | None, typer.Option(help="exact, balanced, fast, or a recipe's JSON file")] = None,
    policy: Annotated[str | None, typer.Option(help="a policy as in evaluate, such as selective:0.1")] = None,
    denoising: Denoise = None,
    steps: Annotated[int | None, typer.Option(min=1, help="decoding steps; the recipe's or 32 when omitted")] = None,
    cfg: Annotated[
        float | None, typer.Option(min=1, help="guidance scale; the recipe's or 3 when omitted; 1 is none")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="noise of the diffusion head; the recipe's or 0.8 when omitted")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="of tokens: random, raster, halton or checkerboard; random when omitted")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="images at once; a process claims so many after another")] = 64,
    format: Annotated[str, typer.Option(help="png, npz or safetensors")] = "png",
    raw: Annotated[bool, typer.Option("--raw", help="keep what generate returns as it is, such as latents")] = False,
    adm: Annotated[bool, typer.Option("--adm", help="also one .npz of all for ADM's evaluation suite")] = False,
    frechet: Annotated[bool, typer.Option(help="judge images of the models that come along")] = True,
    seed: Seed = 0,
    weights: Weights = None,
    compile: Compile = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; this process's GPU, if any, when omitted")] = None,
) -> None:
    """Sample images into a folder, an image from its number alone; resumable after a kill at any moment.

    Many processes share the work: torchrun --nproc-per-node 8 -m marche_fx sample --count 50000 --out DIR.
    """
    from ..sampling.command import Wanted, run_sample

    given = {"steps": steps, "cfg": cfg, "temperature": temperature, "order": order}
    told = {name: value for name, value in given.items() if value is not None}
    run_sample(
        Wanted(model, weights, recipe, policy, denoising, told, compile, device),
        count,
        out,
        batch=batch,
        labels=labels,
        seed=seed,
        format=format,
        raw=raw,
        adm=adm,
        frechet=frechet,
    )
