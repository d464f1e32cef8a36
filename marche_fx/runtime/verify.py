"""Compare the rewritten step with the original."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.utils import _pytree as pytree

from ..errors import EquivalenceError
from ..passes.capture.apart_rows import TOLERANCE
from ..passes.capture.arguments import opened

FAST = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Modules with a fast path."""

DRAWN = 8
"""Calls of an original that draws numbers, after a first one: so many coins fall on one side once in 256 times."""


def original_result(step: str, call: Callable[[], Any]) -> Any:
    """What the original returns.

    Where it draws numbers from Python or NumPy, of which a capture makes constants, it is called several times: it may
    ignore them, as layers that are dropped in training alone, and two results may be equal by chance.

    Raises:
        EquivalenceError: the results differ.
    """
    before = places_of_generators()
    result = call()
    if places_of_generators() != before:
        for _ in range(DRAWN):
            try:
                check_equal(step, call(), result)
            except EquivalenceError as error:
                raise EquivalenceError(
                    f"{step} draws numbers from random or numpy.random, and returns one result and then another for "
                    "the same arguments, so that it cannot be cached. Draw them in the loop and pass them as an "
                    "argument, or turn off what draws them, as model.eval() does of what is for training"
                ) from error
    return result


def places_of_generators() -> tuple[object, ...]:
    """How far the generators of Python and NumPy that all code shares have come."""
    _, numbers, place, *others = np.random.get_state(legacy=True)
    return random.getstate(), np.asarray(numbers).tobytes(), place, *others


def check_equal(step: str, ours: Any, original: Any, *, rounded_to: Iterable[torch.dtype] = ()) -> None:
    """Raise if results of the two differ by more than rounding.

    Args:
        rounded_to: dtypes less precise than the results' that values were cast to on the way.

    Raises:
        EquivalenceError: names the result and its worst element.
    """
    (left, own_spec), (right, spec) = pytree.tree_flatten(opened(ours)), pytree.tree_flatten(opened(original))
    if len(left) != len(right):
        raise EquivalenceError(f"{step} returned {len(left)} values, the original {len(right)}")
    if own_spec != spec:
        raise EquivalenceError(f"{step} returned {own_spec}, the original {spec}")
    for number, (a, b) in enumerate(zip(left, right, strict=True)):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            check_tensor(f"result {number} of {step}", a, b, {b.dtype, *rounded_to})
        elif isinstance(a, Tensor) or isinstance(b, Tensor) or a != b:
            raise EquivalenceError(f"result {number} of {step} is {a!r}, the original's is {b!r}")


@contextmanager
def as_traced(model: nn.Module) -> Iterator[None]:
    """Call the original as a trace runs it: without the fast path of PyTorch's own attention.

    That path gives zeros in padded rows, which mean nothing, and others than the slow one; a trace never takes it.
    """
    has_one = any(isinstance(module, FAST) for module in model.modules()) and mha.get_fastpath_enabled()
    if has_one:
        mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        if has_one:
            mha.set_fastpath_enabled(True)


def check_tensor(name: str, ours: Tensor, original: Tensor, dtypes: set[torch.dtype]) -> None:
    if ours.shape != original.shape or ours.dtype != original.dtype:
        raise EquivalenceError(
            f"{name} is {ours.dtype} {tuple(ours.shape)}, the original's is {original.dtype} {tuple(original.shape)}"
        )
    if not original.numel():
        return
    if not original.is_floating_point():
        difference, bound = (ours != original).double(), 0.0
    else:
        finite = original.isfinite()
        same = (ours == original) | (ours.isnan() & original.isnan())
        difference = torch.where(same, 0.0, (ours.double() - original.double()).abs())
        tolerance = max(TOLERANCE.get(dtype, 0.1) for dtype in dtypes)
        bound = tolerance * float(original[finite].abs().max() if finite.any() else 0)
    # A NaN is larger than any bound.
    worst = int(difference.nan_to_num(nan=float("inf")).argmax())
    if not float(difference.flatten()[worst]) <= bound:
        place = tuple(int(index) for index in torch.unravel_index(torch.tensor(worst), original.shape))
        raise EquivalenceError(
            f"{name} differs from the original's by up to {float(difference.flatten()[worst]):.3g}, more than the "
            f"{bound:.3g} that {original.dtype} explains: at {place} it is {float(ours[place]):.6g} and should be "
            f"{float(original[place]):.6g}. If the original gives one result and then another for the same arguments, "
            "as one that counts its calls, it cannot be cached. If it asks whether it is traced, as by "
            "torch.compiler.is_compiling(), and then computes something else, let it not ask. If neither, this is a "
            "bug in marche_fx: please report the model. transform(..., verify=False) skips this check."
        )
