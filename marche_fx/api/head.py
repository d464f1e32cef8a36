"""A model's head, what its loop runs between steps: the same computation with faster products."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..passes.lower.products import has_onednn, is_small


class Linear(nn.Linear):
    """`nn.Linear` whose products with float32 weights on the CPU run in oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        # Gradients, and compilers, which choose a product themselves, get the operator that they know. For a small
        # product it is all that would be called in the end.
        if is_small(x, self.weight) or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        found: Tensor = torch.ops.marche_fx.linear(x, self.weight, self.bias)
        return found


def with_fast_products(head: nn.Module) -> nn.Module:
    """``head`` in evaluation mode, with `Linear` for its linears; itself where there are none or oneDNN is forbidden.

    The copy shares parameters, buffers and hooks, so what becomes of them later counts in both.
    """
    own = copied(head, {}) if has_onednn() else head
    return head if own is head else own.eval()


def copied(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """A shallow copy of ``module`` and of those of its children that hold linears, each made once.

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
    """Whether it is `nn.Linear` itself: a subclass may compute something else."""
    return type(module) is nn.Linear
