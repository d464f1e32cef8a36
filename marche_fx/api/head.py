"""A model's head, what its loop runs between steps: faster products, and its denoiser as a captured step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..head.policy import HeadReuse
from ..head.step import HeadStep
from ..passes.lower.products import has_onednn, is_small
from .optimization import replace_child
from .options import names_of


class Linear(nn.Linear):
    """`nn.Linear` whose products with float32 weights on the CPU run in oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        # Gradients, and compilers, which choose a product themselves, get the operator that they know.
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        found: Tensor = torch.ops.marche_fx.linear(x, self.weight, self.bias)
        return found


def with_fast_products(head: nn.Module) -> nn.Module:
    """``head`` in evaluation mode, with `Linear` for its linears; itself where none gains or oneDNN is forbidden.

    The copy shares parameters, buffers and hooks, so what becomes of them later counts in both.
    """
    own = copied(head, {}) if has_onednn() else head
    return head if own is head else own.eval()


def copied(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """A shallow copy of ``module`` and of those of its children that hold such linears, each made once.

    A module that looks after its own attributes, such as one that `torch.compile` wrapped, stays as it is.
    """
    if module not in known and has_linears(module) and has_plain_attributes(module):
        own = known[module] = copy.copy(module)
        if is_linear(own):
            own.__class__ = Linear
        own._modules = {
            name: child if child is None else copied(child, known) for name, child in module._modules.items()
        }
    return known.get(module, module)


def has_plain_attributes(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__setstate__ is nn.Module.__setstate__ and kind.__getattr__ is nn.Module.__getattr__


def has_linears(module: nn.Module) -> bool:
    return any(is_linear(own) for own in module.modules())


def is_linear(module: nn.Module) -> bool:
    """Whether it is `nn.Linear` itself, for a subclass may compute something else, of a weight for which it pays."""
    return type(module) is nn.Linear and not is_small(module.weight)


def replace_denoisers(
    optimized: nn.Module,
    model: nn.Module,
    paths: Sequence[str],
    reuse: HeadReuse,
    *,
    compile: bool,
    verify: bool,
    most: int,
) -> dict[str, HeadStep]:
    """Put a `HeadStep` in place of methods of the model's children, ``diffloss.net.forward``, on copies of these.

    Args:
        optimized: a copy of ``model``, whose children may be copies too. most: captures that are kept of each.
    """
    found: dict[str, HeadStep] = {}
    copies: dict[str, nn.Module] = {"": optimized}
    # What a method calls by itself is the original's, whatever takes that one's place.
    originals = {path: getattr(child(optimized, path), method_of(path)) for path in paths}
    for path in paths:
        *parents, method = path.split(".")
        for number, name in enumerate(parents):
            holder, own = ".".join(parents[:number]), ".".join(parents[: number + 1])
            if own not in copies:
                copies[own] = copy.copy(getattr(copies[holder], name))
                if holder:
                    replace_child(copies[holder], name, copies[own])
                else:
                    # Found before the child of this name, which stays among the modules that the two models share.
                    optimized.__dict__[name] = copies[own]
        step = HeadStep(
            child(model, path),
            method,
            originals[path],
            path=path,
            reuse=reuse,
            compile=compile,
            verify=verify,
            most=most,
        )
        copies[".".join(parents)].__dict__[method] = found[path] = step
    return found


def child(model: nn.Module, path: str) -> Any:
    """The child whose method a path names: ``diffloss.net`` of ``diffloss.net.forward``."""
    return functools.reduce(getattr, path.split(".")[:-1], model)


def method_of(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def denoiser_paths(model: nn.Module, given: str | Sequence[str] | None, *, default: Sequence[str]) -> tuple[str, ...]:
    """The methods of children that denoise, checked.

    Raises:
        ArgumentError: a path names no method of a child.
    """
    if given is None:
        return tuple(path for path in default if is_method(model, path))
    paths = names_of(given, "inner")
    for path in paths:
        if not is_method(model, path):
            raise ArgumentError(
                f"{type(model).__name__} has no method {path!r} of a child to be a denoiser; inner takes paths such as "
                "'diffloss.net.forward'"
            )
    return paths


def is_method(model: nn.Module, path: str) -> bool:
    """Whether a path names a method of a child, which is a module."""
    owner: Any = model
    for name in path.split(".")[:-1]:
        owner = getattr(owner, name, None)
    return owner is not model and isinstance(owner, nn.Module) and callable(getattr(owner, method_of(path), None))
