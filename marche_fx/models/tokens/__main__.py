"""``python -m marche_fx.models.tokens``: train the bundled tokenizer and MaskGIT, wherever there is a device."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ...stopping import run_command
from ..fashion import DEBIAN_FOLDER
from .command import run_training
from .training import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of Fashion-MNIST's four IDX files")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log and picture")
    parser.add_argument(
        "--minutes", type=float, default=4.0, help="for everything; a GPU's minutes are many of a CPU's"
    )
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--per-class", type=int, default=100, help="images of each class by which decodings are judged")
    given = parser.parse_args()
    device = torch.device(given.device)
    run_training(
        given.data,
        given.out,
        replace(Recipe(), batch=given.batch),
        minutes=given.minutes,
        device=device,
        bf16=device.type == "cuda",
        per_class=given.per_class,
    )


run_command(main)
