"""What a loop gets of a call that waits: stand-ins for the results, which compute them when they are read."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..lazy.rows import RowNumbers
from ..lazy.tensor import LateTensor
from ..passes.analysis.row_outputs import numbers_with
from ..passes.capture.arguments import closed
from ..refresh import FullRefresh
from .pending import PendingStep


def late_results(pending: PendingStep) -> Any:
    """The results of a call as what its step returns."""
    plan = pending.program.plan
    leaves = [late_result(pending, number, leaf) for number, leaf in enumerate(plan.results)]
    return closed(pytree.tree_unflatten(leaves, plan.dense.out_spec))


def late_result(pending: PendingStep, number: int, leaf: Any) -> Any:
    like = leaf.meta["val"] if isinstance(leaf, fx.Node) else None
    if not isinstance(like, Tensor):
        return leaf
    if leaf in pending.values:
        # Computed before any token is. A copy, as the next call may give it again, whatever is written into this one.
        return pending.values[leaf].clone()
    # In full, what a loop makes of all rows is the original's to the last bit.
    records = pending.method.policy != FullRefresh()
    return LateTensor.of_result(like, row_numbers(pending, number), pending, number, records=records)


def row_numbers(pending: PendingStep, number: int) -> RowNumbers | None:
    """The tokens that the elements of a result are computed of."""
    own = pending.program.row_outputs[number]
    if own is None:
        return None
    given: Any = own.numbers
    if given is None:
        # Only now are the values known that say where each token is put.
        leaf = pending.program.plan.results[number]
        given = cache(lambda: numbers_with(leaf, pending.program.plan, pending.values))
    return RowNumbers(torch.Size(own.shape), own.samples, own.tokens, given, own.dims, own.offset)
