"""The arguments of one call of a denoiser, and what is asked of their values: at most once a call for each device."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..passes.capture.captured import Autocast

Key = tuple[float, ...]
"""The values of a call's times."""


@dataclass(frozen=True)
class Call:
    """One call, with plain floating-point numbers, such as a guidance scale, as tensors ``[]``.

    Attributes:
        leaves: the tensors among its arguments. kind: equal for calls that one captured denoiser serves.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaves: tuple[Tensor, ...]
    kind: Any

    @classmethod
    def of(cls, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        bound = inspect.signature(method).bind(*args, **kwargs)
        args, kwargs = pytree.tree_map_only(float, as_tensor, (bound.args, bound.kwargs))
        leaves, spec = pytree.tree_flatten((args, kwargs))
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        plain = tuple((number, repr(leaf)) for number, leaf in enumerate(leaves) if not isinstance(leaf, Tensor))
        kinds = tuple((leaf.dtype, leaf.device, leaf.shape[1:], leaf.ndim) for leaf in tensors)
        return cls(args, kwargs, tensors, (str(spec), plain, kinds, Autocast.current(list(tensors))))


def as_tensor(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor as it was in an earlier call.

    Attributes:
        tensor: the caller's. version: how often it had been written; None where nobody counts. values: a copy.
    """

    tensor: Tensor
    version: int | None
    values: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Held:
        return cls(tensor, version_of(tensor), tensor.detach().clone())

    def is_surely(self, tensor: Tensor) -> bool:
        """Whether it is the same, not written since, without a look at its values."""
        return tensor is self.tensor and self.version is not None and version_of(tensor) == self.version


def version_of(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


@dataclass(frozen=True)
class Look:
    """What a look at values told.

    Attributes:
        times: the values of each tensor that was looked at; None where its rows differ. same: whether others are what
            they were.
    """

    times: tuple[Key | None, ...]
    same: tuple[bool, ...]

    @property
    def key(self) -> Key | None:
        """The values of all times; None where rows of one differ."""
        return None if None in self.times else tuple(value for own in self.times for value in own or ())


def look(times: Sequence[Tensor], pairs: Sequence[tuple[Tensor, Held]] = ()) -> Look:
    """The values of tensors that are alike in all rows, and whether others are as they were."""
    asked: dict[torch.device, list[Tensor]] = defaultdict(list)
    for leaf in times:
        first = leaf[:1] if leaf.ndim else leaf
        asked[leaf.device] += [(leaf == first).all().reshape(1), first.reshape(-1)]
    known = [held.is_surely(leaf) if leaf.shape == held.values.shape else False for leaf, held in pairs]
    open_pairs = [own for own, sure in zip(pairs, known) if not sure and own[0].shape == own[1].values.shape]
    for leaf, held in open_pairs:
        asked[leaf.device].append((leaf == held.values).all().reshape(1))
    told = {
        device: iter(torch.cat([own.to(torch.float64) for own in parts]).tolist()) for device, parts in asked.items()
    }
    found: list[Key | None] = []
    for leaf in times:
        own = told[leaf.device]
        is_uniform = bool(next(own))
        values = tuple(next(own) for _ in range(leaf[:1].numel() if leaf.ndim else 1))
        found.append(values if is_uniform else None)
    answers = iter([bool(next(told[leaf.device])) for leaf, _ in open_pairs])
    same = tuple(
        sure or (leaf.shape == held.values.shape and next(answers)) for sure, (leaf, held) in zip(known, pairs)
    )
    return Look(tuple(found), same)
