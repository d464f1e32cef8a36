"""Stop every command at many random moments, and compare what it wrote when it has gone on; tell all of it.

    OMP_NUM_THREADS=1 python scripts/kills.py --kills 50 --out kills.json

Each command of `tests.kills.commands` is killed so often, and told to stop and robbed of its folder a tenth as often.
The first that is not what a run is that nobody disturbed ends all, and says what differs.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.kills.commands import COMMANDS  # noqa: E402


def stops(kills: int, seed: int) -> list[str]:
    """Of all kinds, in random order."""
    found = ["killed"] * kills + ["told", "removed"] * -(-kills // 10)
    random.Random(seed).shuffle(found)
    return found


def stopped(command: str, wanted: list[str], seed: int) -> dict[str, Any]:
    """How often each of what `tests.kills` tells of a command came to pass, in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        run = [sys.executable, "-W", "ignore", "-m", "tests.kills", command, out, ",".join(wanted), str(seed)]
        told = subprocess.run(run, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True).stdout.splitlines()
    words = [line.split() for line in told]
    return {
        "command": command,
        "seconds of a run": float(words[0][3]),
        "runs": len({own[0] for own in words[1:]}),
        **collections.Counter(own[1] for own in words[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--command", action="append", choices=COMMANDS, help="all when omitted; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("kills.json"), help="file of the counts")
    given = parser.parse_args()
    rows = []
    for command in given.command or COMMANDS:
        rows.append(stopped(command, stops(given.kills, given.seed), given.seed))
        print(rows[-1], flush=True)
        given.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
