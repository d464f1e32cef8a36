"""The processes of a run: those that torchrun started, or this one alone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=12)
"""So long a process waits for the others, of which one may be slow. Where one ends, torchrun ends all."""

PLACES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What whoever starts several processes says in the environment."""


@dataclass(frozen=True)
class Ranks:
    """One of ``world`` processes, and what they tell one another.

    Attributes:
        store: counts for all of them. run: a word for this run of theirs, another after each restart, so that counts of
            an earlier one are not gone on with.
    """

    rank: int
    world: int
    store: dist.Store
    run: str

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def add(self, name: str, count: int) -> int:
        """Add to a number that all processes share, at once for all of them, and read it."""
        return self.store.add(f"marche_fx/{self.run}/{name}", count)

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, on all of them, once all of them did."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The processes of the group that is there, or that the environment tells of; else this one alone."""
    if dist.is_initialized():
        yield grouped()
    elif all(name in os.environ for name in PLACES):
        local_device()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, world = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(backend, store=of_this_start(store), rank=rank, world_size=world, timeout=PATIENCE)
        try:
            yield grouped()
        finally:
            dist.destroy_process_group()
    else:
        yield Ranks(0, 1, dist.HashStore(), uuid.uuid4().hex)


def of_this_start(store: dist.Store) -> dist.Store:
    """The store that torchrun keeps over restarts, without what the processes before a restart wrote.

    Those of several machines count restarts apart. There torchrun makes a new store for every start where the
    environment says TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (pytorch/pytorch#135712).
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return dist.PrefixStore(f"marche_fx/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def grouped() -> Ranks:
    run = [uuid.uuid4().hex]
    dist.broadcast_object_list(run)
    # The one that the group met at: another would need a port, and to be told of it.
    store = dist.distributed_c10d._get_default_store()
    return Ranks(dist.get_rank(), dist.get_world_size(), store, run[0])


def local_device() -> torch.device:
    """The device of this process: the GPU that ``LOCAL_RANK`` says, or the first, where there are any; else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
