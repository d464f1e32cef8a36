"""Two processes that share the weights of a model: ``python -m`` this with a file to meet at."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import marche_fx
from marche_fx import UnsupportedModelError
from tests.sessions import inputs, transformer

PROCESSES = 2


def tell(text: str) -> None:
    """Print a line at once: of one in two writes the end may be another process's."""
    print(f"{text}\n", end="", flush=True)


def rank(number: int, meeting: str) -> None:
    """Say what `transform` says of a model in parts, and that it works on one that is whole."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(meeting, PROCESSES), rank=number, world_size=PROCESSES)
    model, (x,) = transformer(1), inputs(1)
    whole = model(x)
    parallel = {"blocks.0.mlp.fc1": ColwiseParallel(), "blocks.0.mlp.fc2": RowwiseParallel()}
    parallelize_module(model, init_device_mesh("cpu", (PROCESSES,)), parallel)
    assert torch.allclose(model(x), whole), "it computes what it did"
    try:
        marche_fx.transform(model)
        tell(f"{number}: transformed")
    except UnsupportedModelError as error:
        tell(f"{number}: {error}")
    optimized = marche_fx.transform(transformer(1), compile=False)
    with marche_fx.decoding(optimized):
        tell(f"{number}: {torch.allclose(optimized(x), whole)}")
    dist.destroy_process_group()


if __name__ == "__main__":
    with torch.no_grad():
        children = []
        for number in range(PROCESSES):
            child = os.fork()
            if not child:
                try:
                    rank(number, sys.argv[1])
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        assert not any(os.waitpid(child, 0)[1] for child in children)
