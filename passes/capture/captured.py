"""A captured step: a graph, what enters it, and for which calls it holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from .arguments import flattened
from .branches import Branches
from .draws import Draw
from .tables import Tables
from .writes import Writes


@dataclass(frozen=True)
class Input:
    """A leaf of the step's arguments: a tensor that enters the graph as ``node``, or a value baked into it."""

    node: fx.Node | None
    value: Any
    """The baked value; for a tensor its fake, whose dropped-token dimensions are symbolic."""

    def accepts(self, argument: Any) -> bool:
        """Whether the graph holds for ``argument``: same type, dtype, device and static sizes, or the same value."""
        return self.accepts_kind(argument) and (
            self.node is None
            or all(not isinstance(own, int) or own == new for own, new in zip(self.value.shape, argument.shape))
        )

    def accepts_kind(self, argument: Any) -> bool:
        """The same for any sizes."""
        if self.node is None:
            same = argument is self.value or (not isinstance(argument, Tensor) and argument == self.value)
            return type(argument) is type(self.value) and same
        return (
            isinstance(argument, Tensor)
            and argument.dtype == self.value.dtype
            and argument.device == self.value.device
            and argument.layout == self.value.layout
            and argument.ndim == self.value.ndim
        )


@dataclass(frozen=True)
class Autocast:
    """The state of `torch.autocast` on the device of a step's tensors."""

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, leaves: list[Any]) -> Autocast:
        device_type = next((leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)), "cpu")
        return cls(device_type, torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type))

    def restored(self) -> AbstractContextManager[Any]:
        """A context in which this is the state again."""
        if (torch.is_autocast_enabled(self.device_type), torch.get_autocast_dtype(self.device_type)) == (
            self.enabled,
            self.dtype,
        ):
            # As it mostly is, and to enter it again costs some operators' time.
            return nullcontext()
        return torch.autocast(self.device_type, self.dtype, self.enabled)


@dataclass(frozen=True)
class Capture:
    """A step as a graph.

    The graph's placeholders are the weights (parameters, buffers and tensor constants) and the tensors among the
    step's arguments; its outputs the flattened results.
    """

    step: str
    graph_module: fx.GraphModule
    weights: dict[fx.Node, str]
    """Placeholder to path of the parameter or buffer in the model; looked up at every call, never copied."""
    constants: dict[fx.Node, Tensor]
    inputs: tuple[Input, ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    autocast: Autocast
    """The graph holds its casts and must run under it."""
    tables: Tables = field(default_factory=Tables)
    """What the step itself makes of the model's attributes, and where else it reads."""
    branches: Branches | None = None
    """What it asked of its arguments' values."""
    writes: Writes | None = None
    """What it leaves in its arguments."""
    bools: frozenset[frozenset[int]] = frozenset()
    """Leaves of the arguments that may be bool where the graph has numbers, see `serves_bools`."""
    draws: tuple[Draw, ...] = ()
    """Random numbers that a call draws from the global generators, though nothing reads them."""
    is_instance: bool = False
    """Whether it was made of a capture with symbolic sizes, without a trace of its own."""

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        leaves, spec = flattened(args, kwargs)
        if spec != self.in_spec or Autocast.current(leaves) != self.autocast:
            return False
        if not all(own.accepts(leaf) for own, leaf in zip(self.inputs, leaves)):
            return False
        return self.branches is None or self.branches.hold_for([own for own in leaves if isinstance(own, Tensor)])


def argument_names(function: Callable[..., Any], captured: Capture) -> list[str]:
    """For each tensor among a step's arguments the name of the parameter that it is passed as, or is in."""
    return [name for name, own in zip(leaf_names(function, captured), captured.inputs) if own.node is not None]


def leaf_names(function: Callable[..., Any], captured: Capture) -> list[str]:
    """For each leaf of a step's arguments the name of the parameter that it is passed as, or is in."""
    try:
        parameters = [
            own.name
            for own in inspect.signature(function).parameters.values()
            if own.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        parameters = []
    args, kwargs = pytree.tree_unflatten(list(captured.inputs), captured.in_spec)
    names = [*parameters, *(f"argument {number}" for number in range(len(parameters), len(args)))]
    given = [*zip(names, args), *kwargs.items()]
    return [name for name, tree in given for _ in pytree.tree_leaves(tree)]
