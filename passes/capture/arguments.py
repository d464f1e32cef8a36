"""What a step takes and returns: trees whose leaves are tensors and plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ArgumentError, UnsupportedModelError

PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, range, Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
)
"""Types of values that a capture bakes in: they cannot change behind its back."""

ATTRS = "__attrs_attrs__"
"""Where attrs says which fields a class of it has."""

BLOCK_MASK = "torch.nn.attention.flex_attention.BlockMask"
"""A class of a module that no other step needs loaded."""

RESULTS = (type(None), bool, int, float, str, torch.SymInt, torch.SymFloat, torch.SymBool)
"""Types beside tensors that a captured step can return."""


@dataclasses.dataclass(frozen=True)
class Fields:
    """An instance of a dataclass, or of a class of attrs, taken apart, where PyTorch does not do it itself."""

    kind: Any
    values: dict[str, Any]


def as_children(fields: Fields) -> tuple[list[Any], Any]:
    return list(fields.values.values()), (fields.kind, tuple(fields.values))


def from_children(children: Iterable[Any], context: Any) -> Fields:
    kind, names = context
    return Fields(kind, dict(zip(names, children)))


pytree.register_pytree_node(Fields, as_children, from_children, serialized_type_name="marche_fx.Fields")


SIMPLE: frozenset[type] = frozenset({Tensor, nn.Parameter, type(None), bool, int, float, str})
"""Types of most leaves, which are no trees."""


def is_simple(tree: Any, leaves: Collection[type] = SIMPLE) -> bool:
    """Whether a tree is made of tuples, lists and dicts with leaves of these types alone; to go through any costs more.

    Other trees may be simple too.
    """
    kind = type(tree)
    if kind is tuple or kind is list:
        return all(is_simple(own, leaves) for own in tree)
    return kind in leaves or (kind is dict and all(is_simple(own, leaves) for own in tree.values()))


def flattened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], pytree.TreeSpec]:
    """The leaves of a call, and how they are nested; of most calls nothing is."""
    leaves = [*args, *kwargs.values()]
    if all(type(own) in SIMPLE for own in leaves):
        return leaves, spec_of_flat(len(args), tuple(kwargs))
    return pytree.tree_flatten((args, kwargs))


@cache
def spec_of_flat(count: int, names: tuple[str, ...]) -> pytree.TreeSpec:
    return pytree.tree_structure(((None,) * count, dict.fromkeys(names)))


def opened(tree: Any) -> Any:
    """``tree`` with every instance of a dataclass, or class of attrs, that PyTorch takes for a leaf as `Fields`."""
    if is_simple(tree):
        return tree
    return pytree.tree_map(lambda leaf: take_apart(leaf) if is_closed(leaf) else leaf, tree)


def is_closed(leaf: Any) -> bool:
    return (dataclasses.is_dataclass(leaf) or hasattr(type(leaf), ATTRS)) and not isinstance(leaf, type)


def take_apart(instance: Any) -> Fields:
    fields = dataclasses.fields(instance) if dataclasses.is_dataclass(instance) else getattr(instance, ATTRS)
    names = [field.name for field in fields]
    return Fields(type(instance), {name: opened(getattr(instance, name)) for name in names})


def closed(tree: Any) -> Any:
    """The inverse of `opened`."""
    if is_simple(tree):
        return tree
    return pytree.tree_map(
        lambda leaf: put_together(leaf) if isinstance(leaf, Fields) else leaf,
        tree,
        is_leaf=lambda node: isinstance(node, Fields),
    )


def put_together(fields: Fields) -> Any:
    # Not by calling the class: what its __post_init__ does has been done.
    instance: Any = fields.kind.__new__(fields.kind)
    for name, value in fields.values.items():
        object.__setattr__(instance, name, closed(value))
    return instance


def named_leaves(call: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of ``(args, kwargs)``, each with the argument that it belongs to in the user's terms."""
    args, kwargs = call
    named = [(f"positional argument {number}", value) for number, value in enumerate(args)]
    for name, value in [*named, *((f"argument {name!r}", value) for name, value in kwargs.items())]:
        for leaf in pytree.tree_leaves(value):
            yield name, leaf


def check_arguments(step: str, call: Any) -> None:
    """Raise if ``(args, kwargs)`` holds what no capture can.

    Raises:
        ArgumentError: names the argument.
    """
    for name, leaf in named_leaves(call):
        if not isinstance(leaf, (Tensor, *PLAIN)):
            if is_cache(leaf):
                raise ArgumentError(
                    f"{name} of {step} holds a {full_name(leaf)}, a cache of the model's own. Leave it out, and call "
                    f"{step} with use_cache=False: what is cached here is told by which tokens are active"
                )
            if full_name(leaf) == BLOCK_MASK:
                raise ArgumentError(
                    f"{name} of {step} holds a BlockMask of flex_attention, of which a rule is part that may change "
                    "without notice. Make it in the step, of tensors that are passed, or keep it as an attribute of "
                    "the model"
                )
            raise ArgumentError(
                f"{name} of {step} holds a {full_name(leaf)}, which may change without notice. Pass tensors and plain "
                "values (numbers, strings, dtypes, None), or lists, tuples, dicts and dataclasses of them; register "
                "another class of them by torch.utils._pytree.register_pytree_node."
            )
        if isinstance(leaf, Tensor) and (leaf.layout is not torch.strided or leaf.is_nested):
            layout = "nested" if leaf.is_nested else leaf.layout
            raise ArgumentError(f"{name} of {step} is a {layout} tensor; pass a dense one, padded where rows differ")
        if isinstance(leaf, Tensor) and leaf.device.type == "meta":
            raise ArgumentError(f"{name} of {step} is on the meta device and has no values; pass a real tensor")


def check_results(step: str, results: Any) -> None:
    """Raise if what a step returns is neither tensors nor plain values.

    Raises:
        UnsupportedModelError: names the result.
    """
    for number, leaf in enumerate(pytree.tree_leaves(results)):
        if not isinstance(leaf, (Tensor, *RESULTS)):
            if is_cache(leaf):
                raise UnsupportedModelError(
                    f"result {number} of {step} is a {full_name(leaf)}, a cache of the model's own, whose rows would "
                    "go stale. Call the step with use_cache=False, or set model.config.use_cache = False"
                )
            raise UnsupportedModelError(
                f"result {number} of {step} is a {full_name(leaf)}, in which marche_fx does not look for tensors. "
                "Return tensors and plain values, or tuples, lists, dicts and dataclasses of them; register another "
                "class of them by torch.utils._pytree.register_pytree_node."
            )


def is_cache(value: Any) -> bool:
    """Whether it is a model's own cache of keys and values, as transformers' `DynamicCache`, by what it is called."""
    return any(
        kind.__module__ == "transformers.cache_utils" or "cache" in kind.__name__.lower()
        for kind in type(value).__mro__
    )


def full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
