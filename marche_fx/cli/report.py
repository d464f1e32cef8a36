"""``marche-fx explain`` and ``report``: what would be made of a model, and what a generation of it computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:FUNCTION",
        help="a function that takes nothing and returns (model, run), where run(given) decodes once with the given "
        "model, inside `with marche_fx.decoding(given):` where the loop is its own; (model, run, options) passes step, "
        "loop and query on",
    ),
]
Active = Annotated[float, typer.Option("--active", min=0, max=1, help="share of tokens to take as active, for FLOPs")]
Page = Annotated[
    Path | None, typer.Option("--out", help="file to write it to as well: .html for a page, .txt, .json or .dot")
]


def explain(
    model: Model,
    active: Active = 0.1,
    speed: Annotated[bool, typer.Option("--speed", help="measure this machine, and predict how much faster")] = False,
) -> None:
    """Say what would be found in a model's step and what it would save: a dry run, at the first step of its loop."""
    from rich import print as show

    from ..bench.user_model import found, returned
    from ..reporting.first_calls import explain_first_calls

    own, run, options = returned(model, found(model))
    for told in explain_first_calls(own.eval(), run, active=active, speed=speed, **options):
        show(told)


def report(
    model: Model,
    policy: Annotated[str | None, typer.Option("--policy", help="as in evaluate; the default when omitted")] = None,
    compile: Annotated[bool, typer.Option(help="torch.compile the rewritten steps")] = False,
    active: Active = 0.1,
    out: Page = None,
) -> None:
    """Decode once with a transformed model and tell what was found, computed and read, step by step."""
    import torch
    from rich import print as show

    from ..api.transform import transform
    from ..bench.user_model import found, returned
    from ..evaluate.points import parse_point
    from ..refresh import FullRefresh
    from ..reporting.report import check_target
    from ..reporting.report import report as told_of

    if out is not None:
        check_target(out)
    refresh = None if policy is None else parse_point(policy).policy or FullRefresh()
    own, run, options = returned(model, found(model))
    optimized = transform(own.eval(), refresh=refresh, compile=compile, **options)
    with torch.no_grad():
        run(optimized)
    told = told_of(optimized, active=active)
    show(told)
    if out is not None:
        told.save(out)
        print(f"report: {out}")
