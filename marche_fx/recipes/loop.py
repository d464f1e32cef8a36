"""What a decoding loop is told of a recipe: arguments of MAR's, from plain values by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..checks import check_count, check_kind
from ..errors import RecipeError
from ..orders import COUNTS, ORDERS

ARGUMENTS = {
    "steps": "num_iter",
    "cfg": "cfg",
    "cfg_schedule": "cfg_schedule",
    "temperature": "temperature",
    "order": "orders",
    "counts": "counts",
}
"""What MAR's ``sample_tokens`` calls what it is told."""

RANDOM = "random"
"""The order that MAR's loop draws by itself."""


def loop_arguments(
    told: Mapping[str, Any], model: nn.Module, batch: int, generator: torch.Generator | None = None
) -> dict[str, Any]:
    """What MAR's ``sample_tokens`` is to be called with.

    Args:
        told: by the names of `ARGUMENTS`. batch: images at once. generator: of the order; else the global seed.

    Raises:
        RecipeError: the model has no grid of tokens, or not as many as there are steps.
    """
    check_count("batch", batch, least=1)
    if generator is not None:
        check_kind("generator", generator, torch.Generator)
    rows, columns = grid_of(model)
    steps = told.get("steps")
    if steps is not None and steps > rows * columns:
        raise RecipeError(
            f"the recipe decodes in {steps} steps, and {type(model).__name__} has {rows * columns} tokens, one for each"
        )
    found = dict(told)
    if found.pop("order", RANDOM) != RANDOM:
        order = ORDERS[told["order"]](batch, rows, columns, host_generator(generator))
        # MAR decodes the last of an order first.
        found["order"] = order.flip(-1).to(next(model.parameters()).device)
    if "counts" in told:
        if steps is None:
            raise RecipeError(f"counts={told['counts']!r} are for a number of steps, and the recipe says none")
        found["counts"] = COUNTS[told["counts"]](rows * columns, steps)
    return {ARGUMENTS[name]: value for name, value in found.items()}


def host_generator(given: torch.Generator | None) -> torch.Generator:
    """A generator on the host, as orders take; what is given, or else one seeded by that or by the global seed."""
    if given is not None and given.device.type == "cpu":
        return given
    device = "cpu" if given is None else given.device
    return torch.Generator().manual_seed(int(torch.randint(1 << 62, (), generator=given, device=device)))


def grid_of(model: nn.Module) -> tuple[int, int]:
    """Rows and columns of tokens.

    Raises:
        RecipeError: it is no MAR.
    """
    rows, columns = getattr(model, "seq_h", None), getattr(model, "seq_w", None)
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise RecipeError(
            f"{type(model).__name__} has no seq_h and seq_w as MAR has, so it is not known what its loop takes; tell "
            "it yourself what recipe.told says"
        )
    return rows, columns
