"""Where a node comes from, in the user's terms: module path and source line."""

from __future__ import annotations

import re

from torch import fx

CAPTURED = "model"
"""Attribute under which the captured wrapper holds the user's model."""

LIBRARY_FRAMES = (
    "/torch/nn/modules/",
    "/torch/nn/functional",
    "/torch/_",
    "/torch/overrides",
    "marche_fx/passes/capture/",
)


def module_path(node: fx.Node) -> str:
    """Path of the innermost module that computed ``node``, as in ``named_modules``; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return strip_wrapper(path)


def strip_wrapper(path: str) -> str:
    """A path within the captured wrapper as a path within the user's model."""
    # A module that is called again is recorded as "path@1".
    path = re.sub(r"@\d+", "", path)
    return path.removeprefix(CAPTURED).removeprefix(".")


def source_line(node: fx.Node) -> str:
    """``file.py:12`` of the innermost frame that is the user's; empty where none was recorded."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    for file, line in reversed(frames):
        if not any(part in file for part in LIBRARY_FRAMES):
            return f"{file.rsplit('/', 1)[-1]}:{line}"
    return ""


def describe(node: fx.Node) -> str:
    """``aten.linear at blocks.0.mlp.fc1 (model.py:41)``."""
    name = operator_name(node)
    path, line = module_path(node), source_line(node)
    return name + (f" at {path}" if path else "") + (f" ({line})" if line else "")


def operator_name(node: fx.Node) -> str:
    if node.op != "call_function":
        return f"{node.op} {node.name!r}"
    return str(node.target).rsplit(".", 1)[0] if "." in str(node.target) else getattr(node.target, "__name__", "?")
