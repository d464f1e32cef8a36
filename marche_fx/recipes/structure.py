"""Which models a recipe can be of."""

from __future__ import annotations

import hashlib

from torch import nn


def structure_of(model: nn.Module) -> str:
    """A digest of a model's modules, by the names of their classes, and of the shapes of its weights.

    Not of their values, dtype or device, nor of source: a recipe outlives a new training and a new version.
    """
    told = hashlib.sha256()
    for path, module in model.named_modules():
        told.update(f"{path}: {type(module).__name__}\n".encode())
    for name, weight in model.state_dict(keep_vars=True).items():
        told.update(f"{name} {tuple(weight.shape)}\n".encode())
    return told.hexdigest()[:16]
