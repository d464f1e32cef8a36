"""Where a node comes from, in the user's terms: module path and source line."""

from __future__ import annotations

import functools
import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import fx

CAPTURED = "model"
"""Attribute under which the captured wrapper holds the user's model."""

CAPTURE_FOLDER = Path(__file__).parents[1] / "capture"

HELPERS = ("einops", "einx", "opt_einsum", "jaxtyping", "beartype", "typeguard", "accelerate", "numpy", "functorch")
"""Installed packages that models call and that are never the model."""


def module_path(node: fx.Node) -> str:
    """Path of the innermost module that computed ``node``, as in ``named_modules``; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return strip_wrapper(path)


def is_within(path: str, paths: Iterable[str]) -> bool:
    """Whether the module at a path is inside of one at any of ``paths``."""
    return any(path.startswith(f"{other}.") for other in paths)


def alike(path: str) -> str:
    """A pattern for the paths of modules that repeat: ``layers.*.mlp`` for ``layers.0.mlp``."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path)


def module_types(node: fx.Node) -> dict[str, str]:
    """The class names of the modules that computed ``node``, outermost first, by path."""
    stack = node.meta.get("nn_module_stack") or {}
    # A class that was exported is recorded by its full name.
    named = {path: kind if isinstance(kind, str) else kind.__name__ for path, kind in stack.values()}
    return {strip_wrapper(path): kind.rsplit(".", 1)[-1] for path, kind in named.items() if path}


def strip_wrapper(path: str) -> str:
    """A path within the captured wrapper as a path within the user's model."""
    # A module that is called again is recorded as "path@1".
    path = re.sub(r"@\d+", "", path)
    return path.removeprefix(CAPTURED).removeprefix(".")


def source_line(node: fx.Node) -> str:
    """``file.py:12`` of the innermost frame that is the user's; empty where none was recorded."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    for file, line in reversed(frames):
        if not is_library_frame(file):
            return f"{file.rsplit('/', 1)[-1]}:{line}"
    return ""


@functools.cache
def is_library_frame(file: str) -> bool:
    """Whether a file belongs to PyTorch, to Python, to a package that models call, or to this one's captures."""
    path = Path(file)
    if path.is_relative_to(Path(torch.__file__).parent) or path.is_relative_to(CAPTURE_FOLDER):
        return True
    package = installed_package(file)
    if package:
        return package in HELPERS
    return path.is_relative_to(sysconfig.get_path("stdlib")) or file.startswith("<")


def installed_package(file: str) -> str:
    """The installed package that a file is in, ``x_transformers``; empty for one that is in none."""
    parts = Path(file).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            return parts[parts.index(folder) + 1].removesuffix(".py")
    return ""


def describe(node: fx.Node) -> str:
    """``aten.linear at blocks.0.mlp.fc1 (model.py:41)``."""
    name = operator_name(node)
    path, line = module_path(node), source_line(node)
    return name + (f" at {path}" if path else "") + (f" ({line})" if line else "")


def operator_name(node: fx.Node) -> str:
    if node.op != "call_function":
        return f"{node.op} {node.name!r}"
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target).rsplit(".", 1)[0]
    return getattr(node.target, "__name__", "?")
