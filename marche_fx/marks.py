"""How a transformed model is known."""

from __future__ import annotations

from torch import nn

ATTRIBUTE = "_marche_fx"
"""Where a transformed model keeps its `Optimization`."""


def holds_transformed(module: nn.Module) -> bool:
    """Whether a module is transformed, or has one that is."""
    return any(ATTRIBUTE in vars(own) for own in module.modules())
