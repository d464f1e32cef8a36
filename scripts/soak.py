"""Thousands of sessions of a tiny model, shapes and policies varying: whether anything grows.

    OMP_NUM_THREADS=1 python scripts/soak.py --sessions 10000 --every 250 --rare 50 --out soak

writes ``soak.json`` and ``soak.png``: after every so many sessions resident memory, tensors alive, threads, file
descriptors, captures, and of the sessions since then the operators and the microseconds of one. The first readings are
of captures that are made; from then on all of it is to be flat.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from marche_fx.bench.soak import Reading, soak

TITLES = {
    "resident_mib": "resident memory, MiB",
    "tensors": "tensors",
    "captures": "captures",
    "threads": "threads",
    "descriptors": "file descriptors",
    "operators": "operators of a session",
    "microseconds": "processor time of one, us",
    "dropped": "captures dropped",
}


def save_plot(readings: list[Reading], path: Path) -> None:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panels = figure.subplots(2, len(TITLES) // 2, sharex=True)
    for axes, (name, title) in zip(panels.flat, TITLES.items(), strict=True):
        values = [getattr(own, name) for own in readings]
        axes.plot([own.sessions for own in readings], values, marker=".")
        axes.set_title(title, fontsize=9)
        axes.set_ylim(0, 1.15 * max(values))
    figure.supxlabel("sessions so far", fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--rare", type=int, help="one in so many sessions is of a rare number of tokens")
    parser.add_argument("--out", type=Path, default=Path("soak"), help="of soak.json and soak.png, without the ending")
    given = parser.parse_args()
    readings = []
    for own in soak(given.sessions, given.every, rare=given.rare):
        readings.append(own)
        print(own, flush=True)
        given.out.with_suffix(".json").write_text(json.dumps([asdict(each) for each in readings], indent=2) + "\n")
    save_plot(readings, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
