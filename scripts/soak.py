"""Thousands of sessions of a tiny model, shapes and policies varying: whether anything grows.

    OMP_NUM_THREADS=1 python scripts/soak.py --sessions 10000 --out soak

writes ``soak.json`` and ``soak.png``: after every so many sessions resident memory, tensors alive, threads, file
descriptors, captures, and of the sessions since then the operators and the microseconds of one. The first readings are
of captures that are made; from then on all of it is to be flat.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.figure import Figure

from marche_fx.bench.soak import Reading, soak


def save_plot(readings: list[Reading], path: Path) -> None:
    names = [own.name for own in fields(Reading) if own.name != "sessions"]
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, name in zip(figure.subplots(4, 2).flat, names):
        axes.plot([own.sessions for own in readings], [getattr(own, name) for own in readings], marker=".")
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("soak"), help="of soak.json and soak.png, without the ending")
    given = parser.parse_args()
    readings = []
    for own in soak(given.sessions, given.every):
        readings.append(own)
        print(own, flush=True)
        given.out.with_suffix(".json").write_text(json.dumps([asdict(each) for each in readings], indent=2) + "\n")
    save_plot(readings, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
