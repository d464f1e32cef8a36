"""Digests of what a capture bakes in, comparable between processes."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import PLAIN


def kind_of(weight: Tensor | None) -> Any:
    if weight is None:
        return None
    return (type(weight).__qualname__, tuple(weight.shape), weight.dtype, weight.device, weight.requires_grad)


def described(value: Any) -> str:
    """Equal for values that a capture takes for the same."""
    if isinstance(value, tuple):
        return " ".join(map(described, value))
    if isinstance(value, PLAIN):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        return f"{described(kind_of(value))} {digest(data.numpy().tobytes())}"
    if isinstance(value, nn.Module):
        # Told under its own path.
        return "a module"
    if isinstance(value, functools.partial):
        return " ".join(map(described, (value.func, *value.args, *value.keywords.items())))
    if inspect.ismethod(value):
        return described(value.__func__)
    code = getattr(value, "__code__", None)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if callable(value) and hasattr(value, "__qualname__"):
        name = f"{value.__module__}.{value.__qualname__}"
    return name if code is None else f"{name} {digest(*instructions(code))}"


def instructions(code: CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield " ".join((*code.co_names, *code.co_varnames)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from instructions(constant)
        elif isinstance(constant, PLAIN):
            yield repr(constant).encode()
        elif isinstance(constant, (tuple, frozenset)):
            # In an order that does not depend on the process.
            yield from sorted(repr(own).encode() for own in constant)


def digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # Lengths keep one part from running into the next.
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()[:32]
