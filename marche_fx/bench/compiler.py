"""`torch.compile` in a benchmark: whether it works, what it compiled, and the original under it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._dynamo import config
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters
from torch._inductor.exc import InductorError
from torch._inductor.utils import fresh_cache

from ..passes.lower.kept import KEPT


@contextmanager
def compiling() -> Iterator[None]:
    """Where variants are compiled: as for a first time on this machine, and the original as well as can be.

    MAR's encoder drops tokens by `nonzero`, at which `torch.compile` breaks the graph unless it is told to go on. What
    this process compiled before is forgotten: the same methods with other sizes would be compiled for any size, and
    not at all after a few.
    """
    torch.compiler.reset()
    KEPT.forget()
    with fresh_cache(), config.patch(capture_dynamic_output_shape_ops=True):
        yield


def why_it_cannot_compile(device: torch.device) -> str | None:
    """Why `torch.compile` does not work on this machine, in a line; None where it does."""
    x = torch.ones(8, device=device)
    try:
        torch.compile(twice)(x)
    except (BackendCompilerFailed, InductorError) as error:
        return str(error).strip().splitlines()[0]
    return None


def twice(x: Tensor) -> Tensor:
    return x + x


def graphs_compiled() -> int:
    """Graphs compiled so far in this process, by `torch.compile` or as parts of rewritten steps."""
    return int(counters["stats"]["unique_graphs"]) + KEPT.count


def compiled_original(model: nn.Module, steps: Sequence[str], mode: str | None = None) -> nn.Module:
    """A shallow copy of ``model`` whose step methods are compiled, as a user would; the model itself stays."""
    compiled = copy.copy(model)
    for name in steps:
        compiled.__dict__[name] = torch.compile(getattr(model, name), mode=mode)
    return compiled
