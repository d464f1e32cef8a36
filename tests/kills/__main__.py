"""``python -m tests.kills COMMAND FOLDER STOPS SEED``: ``STOPS`` are words of `attempts.STOPS` with commas between."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch

from .attempts import stop_and_go_on
from .commands import COMMANDS, FORGETFUL

if __name__ == "__main__":
    torch.set_num_threads(1)
    name, out, stops, seed = sys.argv[1:]
    stop_and_go_on({**COMMANDS, "forgetful": FORGETFUL}[name], Path(out), stops.split(","), random.Random(int(seed)))
