"""The program: its commands, its heading, and how it ends."""

from __future__ import annotations

from typing import Annotated

import typer

from ..stopping import run_command
from ..version import __version__
from .bench import bench
from .demo import demo
from .evaluate import evaluate
from .report import explain, report
from .sample import sample
from .study import study_text, study_tokens
from .train import train, train_judge, train_text
from .tune import tune

HEADING = "marche_fx: turn a masked transformer's decoding step into one that recomputes active tokens only."

COMMANDS = (
    *(demo, explain, report, train, train_text, train_judge),
    *(evaluate, study_text, study_tokens, tune, bench, sample),
)
"""In the order in which ``--help`` lists them."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help=HEADING, pretty_exceptions_enable=False)
for command in COMMANDS:
    app.command()(command)


def run() -> None:
    """Run the command line; how it ends is told by `run_command`."""
    run_command(app)


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
