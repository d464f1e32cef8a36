"""What a step was called with, small enough to be kept: how far two calls of a session are apart."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, fx

from .host import on_host
from .program import Program


@dataclass(eq=False)
class LeafInput:
    """A tensor among the arguments of one call.

    Attributes:
        tensor: itself, while the loop holds it. version: how often it had been written; None where nobody counts.
        rows: a number for each of its rows ``[B, N]``, or its values where it has no more dimensions than that; a
            tensor while they are on another device and nobody has looked at them, see `look_at`.
        is_tokens: whether it says what the tokens are, so that a decoding step is expected to change some of its rows.
        may_be_time: whether it is at most a number for each sample, as a timestep is.
    """

    tensor: weakref.ref[Tensor]
    version: int | None
    rows: np.ndarray[Any, Any] | Tensor
    is_tokens: bool
    may_be_time: bool

    @classmethod
    def of(cls, tensor: Tensor, *, is_tokens: bool) -> LeafInput:
        version = None if tensor.is_inference() else tensor._version
        rows = rows_on_host(tensor) if tensor.device.type == "cpu" else rows_of(tensor.detach())
        may_be_time = not is_tokens and math.prod(tensor.shape[1:]) == 1
        return cls(weakref.ref(tensor), version, rows, is_tokens, may_be_time)

    @property
    def waits(self) -> bool:
        """Whether to look at the values is to wait for a device."""
        return isinstance(self.rows, Tensor)

    def is_the_same(self, other: LeafInput) -> bool:
        """Whether both are one tensor that was not written between, as far as PyTorch counts."""
        tensor = self.tensor()
        known = self.version is not None and self.version == other.version
        return known and tensor is not None and tensor is other.tensor()

    def moved(self, other: LeafInput) -> np.ndarray[Any, Any]:
        """Which rows differ from the other's, in an array of their shape; both have been looked at.

        Of calls of two lengths, the rows that they have in common.
        """
        own, others = np.asarray(self.rows), np.asarray(other.rows)
        if own.shape == others.shape:
            return np.asarray(own != others)
        if own.ndim != others.ndim:
            return np.ones(own.shape, bool)
        common = tuple(slice(min(sizes)) for sizes in zip(own.shape, others.shape))
        return np.asarray(own[common] != others[common])


@dataclass(frozen=True)
class CallInputs:
    """The tensors among the arguments of one call of a program."""

    program: Program
    leaves: tuple[LeafInput, ...]

    @classmethod
    def of(cls, program: Program, tensors: Sequence[Tensor]) -> CallInputs:
        return cls(
            program,
            tuple(
                LeafInput.of(tensor, is_tokens=node in program.token_inputs)
                for node, tensor in zip(program.plan.inputs, tensors, strict=True)
            ),
        )

    @property
    def waits(self) -> bool:
        return any(own.waits for own in self.leaves)

    def has_the_same_conditions(self, other: CallInputs) -> bool:
        """Whether all arguments without tokens are the same objects, and at least one is tokens."""
        pairs = zip(self.leaves, other.leaves)
        others = [own.is_the_same(before) for own, before in pairs if not own.is_tokens]
        return all(others) and len(others) < len(self.leaves)

    def moved_arguments(self, last: CallInputs) -> set[fx.Node]:
        """Those that differ from the last call's of the program; where a look would wait, those that may differ."""
        pairs = zip(self.program.plan.inputs, self.leaves, last.leaves, strict=True)
        return {
            node
            for node, own, before in pairs
            if not own.is_the_same(before) and (own.waits or before.waits or bool(own.moved(before).any()))
        }

    def distance(self, other: CallInputs, times: Collection[int]) -> tuple[int, int]:
        """How far another call of the program is: arguments without tokens that differ, then rows of all that do.

        Args:
            times: which arguments tell the time, and no condition.
        """
        conditions = rows = 0
        for at, (own, before) in enumerate(zip(self.leaves, other.leaves)):
            count = int(own.moved(before).sum())
            rows += count
            conditions += count > 0 and not own.is_tokens and at not in times
        return conditions, rows

    def is_of_other_length(self, last: CallInputs) -> bool:
        """Whether the two are of as many tensors and samples, and not of as many tokens."""
        own, other = self.program, last.program
        alike = len(self.leaves) == len(last.leaves) and own.samples == other.samples
        return alike and own.plan.axes.lengths != other.plan.axes.lengths

    def is_another_condition(self, last: CallInputs, times: Collection[int] = ()) -> bool:
        """Whether the same tokens are asked for under another condition, as a second branch of guidance is.

        A decoding step changes tokens; where arguments differ and none that carries tokens does, it is no step, unless
        it is the time that passes while no token is drawn.

        Args:
            times: which arguments are, see `times_of`.
        """
        pairs = list(zip(self.leaves, last.leaves))
        alike = len(self.leaves) == len(last.leaves) and all(a.rows.shape == b.rows.shape for a, b in pairs)
        if not alike or not any(own.is_tokens for own in self.leaves) or tokens_moved(self, last):
            return False
        conditions = [own.moved(before).any() for at, (own, before) in enumerate(pairs) if at not in times]
        return self.program is not last.program or any(map(bool, conditions))

    def reverts(self, last: CallInputs, earlier: CallInputs) -> bool:
        """Whether all that ``last`` changed of ``earlier`` is as it was before: the two take turns."""
        changed = False
        for own, after, before in zip(self.leaves, last.leaves, earlier.leaves):
            turned = after.moved(before)
            if bool(turned.any()):
                changed = True
                if bool((turned & own.moved(before)).any()):
                    return False
        return changed

    def masks_anew(self, last: CallInputs, earlier: CallInputs) -> bool:
        """Whether the most common token of the last call is among what comes back: a loop may have masked it anew."""
        found = False
        for own, after, before in zip(self.leaves, last.leaves, earlier.leaves):
            turned = after.moved(before)
            if turned.any() and not own.is_tokens:
                return False
            if turned.any():
                tokens, counts = np.unique(np.asarray(after.rows), return_counts=True)
                found |= bool((np.asarray(own.rows)[turned] == tokens[counts.argmax()]).any())
        return found

    def had(self, earlier: CallInputs, changed: CallInputs) -> bool:
        """Whether all that this call changed of ``changed`` was as it is in an earlier call."""
        leaves = zip(self.leaves, earlier.leaves, changed.leaves)
        return not any((own.moved(after) & own.moved(before)).any() for own, before, after in leaves)


def take_turns(call: CallInputs, last: CallInputs, earlier: Sequence[CallInputs]) -> bool:
    """Whether calls of one stream take turns: all that the last changed of one before is as it was.

    A loop that masks a token anew brings back as much; in turns what the last call had there has been there, too.

    Args:
        earlier: calls before the last, the latest first.
    """
    return any(
        call.reverts(last, before)
        and (not call.masks_anew(last, before) or any(last.had(older, before) for older in earlier[number + 1 :]))
        for number, before in enumerate(earlier)
    )


def tokens_moved(call: CallInputs, last: CallInputs) -> bool:
    pairs = zip(call.leaves, last.leaves)
    return any(own.is_tokens and bool(own.moved(before).any()) for own, before in pairs)


def times_of(call: CallInputs, last: CallInputs) -> set[int]:
    """Which arguments of a call of a program moved, as tokens did, since the last one of its stream."""
    if not tokens_moved(call, last):
        return set()
    pairs = enumerate(zip(call.leaves, last.leaves))
    return {at for at, (own, before) in pairs if own.may_be_time and bool(own.moved(before).any())}


def look_at(calls: Iterable[CallInputs]) -> None:
    """Bring the rows of all these calls to the host, and wait at most once for each device that holds some."""
    by_device = defaultdict(list)
    for call in calls:
        for leaf in call.leaves:
            if isinstance(leaf.rows, Tensor):
                by_device[leaf.rows.device].append((leaf, leaf.rows))
    for leaves in by_device.values():
        # All are whole numbers, see `rows_of`.
        values = torch.cat([rows.flatten().to(torch.int64) for _, rows in leaves]).numpy(force=True)
        ends = np.cumsum([rows.numel() for _, rows in leaves])
        for (leaf, rows), found in zip(leaves, np.split(values, ends[:-1])):
            leaf.rows = found.reshape(rows.shape)


Owner = TypeVar("Owner")


def nearest(call: CallInputs, last_calls: Mapping[Owner, CallInputs], times: Collection[int] = ()) -> Owner:
    """Whose last call is the nearest, the first of those that are as near; looks at none where there is but one."""
    if len(last_calls) > 1:
        look_at([call, *last_calls.values()])
        return min(last_calls, key=lambda own: call.distance(last_calls[own], times))
    (own,) = last_calls
    return own


def rows_on_host(tensor: Tensor) -> np.ndarray[Any, Any]:
    """`rows_of` a tensor on the processor."""
    if tensor.is_complex():
        return on_host(rows_of(tensor))
    if tensor.ndim > 2:
        return on_host(sums_of_rows(tensor)).view(np.int64)
    own = on_host(tensor)
    return own.astype(np.float64).view(np.int64) if own.dtype.kind == "f" else own.copy()


def rows_of(tensor: Tensor) -> Tensor:
    """A copy of a tensor of at most two dimensions; of a larger one a number for each row of the first two."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.ndim <= 2:
        # As bits, of which a NaN is equal to itself.
        return tensor.to(torch.float64, copy=True).view(torch.int64) if tensor.is_floating_point() else tensor.clone()
    return sums_of_rows(tensor).view(torch.int64)


def sums_of_rows(tensor: Tensor) -> Tensor:
    """float64 ``[B, N]``, of rows ``[B, N, ...]`` that differ others."""
    flat = tensor.flatten(2).to(torch.float64)
    return flat @ weights_of_elements(flat.shape[2], flat.device)


@cache
def weights_of_elements(count: int, device: torch.device) -> Tensor:
    """float64 ``[F]``: rows that differ have other sums with these weights, whatever is moved where."""
    # Not as an inference tensor: a session may go on outside of inference mode.
    with torch.inference_mode(False):
        return torch.arange(1, count + 1, device=device, dtype=torch.float64).mul(0.618).sin()
