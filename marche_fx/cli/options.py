"""Options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
CpuTime = Annotated[
    bool, typer.Option("--cpu-time", help="time one thread's work, not the wall: for a machine that others use")
]
Compile = Annotated[bool, typer.Option(help="torch.compile the transformer's blocks")]
