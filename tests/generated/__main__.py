"""Checks many generated models and writes a line of JSON for each, so that a run that was ended goes on."""

from __future__ import annotations

import argparse
import gc
import json
from collections import Counter
from pathlib import Path

import torch

from tests.generated.check import verdict
from tests.generated.choose import numbered_recipe
from tests.generated.simplest import kind_of, simplest


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.generated", description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("generated.jsonl"))
    parser.add_argument("--simplify", action="store_true", help="look for a simpler model that fails likewise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    # A file may hold the lines of other seeds.
    done = {line["number"]: line for line in lines if line["seed"] == options.seed and line["number"] < options.count}
    with options.out.open("a") as out:
        for number in range(options.count):
            if number in done:
                continue
            recipe = numbered_recipe(options.seed, number)
            found, why = verdict(recipe)
            done[number] = {"seed": options.seed, "number": number, "verdict": found}
            if found != "passed":
                done[number] |= {"why": why, "recipe": repr(simplest(recipe) if options.simplify else recipe)}
            print(json.dumps(done[number]), file=out, flush=True)
            if len(done) % 50 == 0:
                print(summary(list(done.values())), flush=True)
                torch.compiler.reset()
                gc.collect()
    print(summary(list(done.values())))
    for kind, times in Counter(kind_of(line["why"]) for line in done.values() if "why" in line).most_common():
        print(f"{times} times: {kind}")


def summary(lines: list[dict[str, str]]) -> str:
    verdicts = Counter(line["verdict"] for line in lines)
    return f"{len(lines)} models: " + ", ".join(f"{verdicts[name]} {name}" for name in ("passed", "failed", "refused"))


if __name__ == "__main__":
    main()
