"""Runs of many processes, in a process of its own that forks: ``python -m`` this.

Forked, processes need not import everything again.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from marche_fx.models import MAR
from marche_fx.sampling import Share
from marche_fx.sampling.bundled import MarLoop
from tests.sampling.tiny import TOLD, garments, sampled

SHARES, BATCH = 12, 2
COUNT = SHARES * BATCH - 1
OPTIONS: dict[str, Any] = {"count": COUNT, "batch": BATCH}


KILLED = "TESTS_KILLED_ONCE"
"""In the environment, the file that says that a process was killed."""


class Watched(MarLoop):
    """The tiny MAR's loop, of which one rank is killed, or waits until the others have done the rest."""

    mode = ""
    calls = 0

    def __call__(self, model: Any, share: Share) -> Tensor:
        Watched.calls += 1
        if self.mode:
            getattr(self, self.mode)()
        return super().__call__(model, share)

    def killed(self) -> None:
        """Rank 2 in its first share, once there is one of another; in the first run alone."""
        if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
            return
        store = dist.distributed_c10d._get_default_store()
        if dist.get_rank() == 2:
            store.wait(["there is one"])
            os.kill(os.getpid(), signal.SIGKILL)
        if Watched.calls == 2:
            store.set("there is one", "")

    def killed_once(self) -> None:
        """The first process of the second machine in its first share, once there is one of another."""
        store, sign = dist.distributed_c10d._get_default_store(), Path(os.environ[KILLED])
        # Machines count their restarts apart, and may change their numbers.
        if os.environ["GROUP_RANK"] == "1" and os.environ["LOCAL_RANK"] == "0" and not sign.exists():
            store.wait(["there is one"])
            sign.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if Watched.calls == 2:
            store.set("there is one", "")

    def slow(self) -> None:
        """Rank 3 in its first share, until all others are begun."""
        store = dist.distributed_c10d._get_default_store()
        if store.add("begun", 1) == SHARES:
            store.set("the others are begun", "")
        if dist.get_rank() == 3:
            store.wait(["the others are begun"])


def killed_once() -> tuple[MAR, Watched]:
    """What ``--model tests.sampling.program:killed_once`` names."""
    torch.set_num_threads(1)
    Watched.mode = "killed_once"
    mar = garments()
    return mar, Watched(mar, TOLD)


def rank(out: str, mode: str) -> int:
    """What one of several processes does; how many images it made."""
    torch.set_num_threads(1)
    # As a process that did not inherit the launcher's answer, which waits until Python runs again.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Watched.mode = mode
    found = sampled(Path(out), generate=Watched(garments(), TOLD), **OPTIONS)
    return found.made[dist.get_rank()] if dist.is_initialized() else sum(found.made)


def launch(out: str, mode: str, processes: int = 4) -> None:
    """As ``torchrun --nproc-per-node 4 --max-restarts 1`` does."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        max_restarts=1,
        start_method="fork",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        monitor_interval=0.05,
    )
    elastic_launch(config, rank)(out, mode)


if __name__ == "__main__":
    torch.set_num_threads(1)
    launch(sys.argv[1], sys.argv[2])
