"""Every operator of a graph tried on stand-ins: whether it can be called so, and gives what the graph says."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode, disable_fake_tensor_cache
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from .refused import UnusableError
from .values import shortened


class Trial:
    """Tries the operators of graphs: each once on arguments of one kind, as layers that are alike have them.

    Args:
        mode: in which stand-ins are made.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode
        self.done: set[str] = set()

    def run(self, node: fx.Node, written: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Raise if an operator fails on what is said of its arguments, or gives another value than is said.

        What depends on sizes that only a run could tell is not tried.

        Args:
            written: the node as JSON. values: what is said of each value, as JSON.

        Raises:
            UnusableError: which operator it is.
        """
        if node.op != "call_function":
            return
        parts = [written[name] for name in ("call", "args", "value")], written.get("kwargs")
        kind = json.dumps(with_values(parts, values))
        if kind in self.done:
            return
        assert self.mode.shape_env is not None
        # Nothing is learned of symbols here, and PyTorch need not tell what fails: the error does. Nothing is tried
        # twice, so what it would remember of each trial, at as much again, is of no use.
        apart = disable_fake_tensor_cache(self.mode), self.mode.shape_env.suppress_guards()
        with self.mode, apart[0], apart[1], torch.no_grad(), silent():
            try_operator(node)
        self.done.add(kind)


@contextmanager
def silent() -> Iterator[None]:
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def with_values(written: Any, values: Mapping[str, Any]) -> Any:
    """Arguments as JSON with what is said of nodes in their place."""
    if isinstance(written, dict):
        name = written.get("node")
        if name is not None:
            return {"node": values[name]}
        return {key: with_values(own, values) for key, own in written.items()}
    return [with_values(own, values) for own in written] if isinstance(written, (list, tuple)) else written


def try_operator(node: fx.Node) -> None:
    target: Any = node.target
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda own: own.meta["val"])
    try:
        found = target(*args, **kwargs)
    except GuardOnDataDependentSymNode:
        return
    except Exception as error:  # Whatever an operator raises for arguments that it cannot have.
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnusableError(f"it calls {node.target} on what that cannot be called on: {shortened(told)}") from error
    if not is_such(found, node.meta["val"]):
        raise UnusableError(f"it has another value for what {node.target} gives than that gives")


def is_such(found: Any, said: Any) -> bool:
    """Whether a value is of the kind that a graph says: sizes of symbols count where they are numbers in both."""
    if isinstance(found, Tensor):
        return (
            isinstance(said, Tensor)
            and (found.dtype, found.device, found.ndim) == (said.dtype, said.device, said.ndim)
            and all(map(is_same_size, found.shape, said.shape))
        )
    if isinstance(found, Sequence) and not isinstance(found, str):
        return isinstance(said, Sequence) and len(found) == len(said) and all(map(is_such, found, said))
    if isinstance(found, (int, torch.SymInt)):
        return isinstance(said, (int, torch.SymInt)) and is_same_size(found, said)
    return type(found) is type(said) and (found == said or not isinstance(found, (bool, float, str, type(None))))


def is_same_size(found: Any, said: Any) -> bool:
    if type(found) is int and type(said) is int:
        return found == said
    left, right = (own.node.expr if isinstance(own, torch.SymInt) else own for own in (found, said))
    # Of two expressions it may take a proof that they are one.
    return bool(left == right or (type(found) is not int and type(said) is not int))
