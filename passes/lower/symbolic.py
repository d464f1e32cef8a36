"""The shapes of a rewritten step with the number of active tokens as a symbol."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import disable_fake_tensor_cache

from ... import ops
from ..rewrite.parts import Split
from ..rules.flops import hint
from .repeats import label

ACTIVE, READ, QUERIED = 7, 6, 5
"""Stand for any number of active tokens, and of those among them that are read and that hold the queried ones."""


def ragged_dims(split: Split, graph: fx.Graph) -> dict[fx.Node, dict[int, str]]:
    """Of every tensor of ``graph`` the dimensions whose size depends on how many tokens are active or queried, and how.

    Args:
        graph: that of the rewritten step, or a copy.
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    sample, streams = split.caches[0], len(split.queried)
    count, device = sample.layout.shape[sample.layout.batch_dim], sample.value.meta["val"].device
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    samples, *others = graph.find_nodes(op="placeholder")
    values: dict[fx.Node, Any] = {samples: like(mode, torch.empty(count, 1, dtype=torch.int64, device=device))}
    sizes = [size for size in (ACTIVE, READ, QUERIED, QUERIED) for _ in range(streams)]
    for number, (node, size) in enumerate(zip(others, sizes)):
        dtype = torch.int64 if number < 3 * streams else torch.bool
        values[node] = ragged(mode, count, size, dtype, device)
    for node in others[len(sizes) :]:
        values[node] = like(mode, node.meta["val"])
    propagate(graph, values, mode)
    return {
        node: {dim: str(size) for dim, size in enumerate(value.shape) if isinstance(size, torch.SymInt)}
        for node, value in values.items()
        if isinstance(value, Tensor)
    }


def ragged(mode: FakeTensorMode, count: int, some: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[B, A]``, where ``some`` stands for A."""
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    context: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.STATIC, DimDynamic.DYNAMIC])
    return mode.from_tensor(torch.empty(count, some, dtype=dtype, device=device), symbolic_context=context)


def like(mode: FakeTensorMode, captured: Any) -> Any:
    """A captured value in ``mode``."""
    if not isinstance(captured, Tensor):
        return captured
    shape, stride = ([hint(size) for size in own] for own in (captured.shape, captured.stride()))
    with mode:
        return torch.empty_strided(shape, stride, dtype=captured.dtype, device=captured.device)


def propagate(graph: fx.Graph, values: dict[fx.Node, Any], mode: FakeTensorMode) -> None:
    """Add what every operator makes of ``values``, those that do the same to values of the same kinds once."""
    from torch._dispatch.python import enable_python_dispatcher

    known: dict[Any, Any] = {}
    # The mode's own memory of shapes compares symbols, which takes longer than to compute most of them. Without the
    # dispatcher a symbol that is padded is the number that it stands for, and a transform of Fourier fails.
    with disable_fake_tensor_cache(mode), mode, enable_python_dispatcher():
        for node in graph.nodes:
            if node.op == "call_function":
                # Layers are alike, and to compute a shape takes long where a size is a symbol.
                alike = label(node, lambda own: kind_of(values[own]))
                if alike not in known or makes_sizes(node):
                    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                    known[alike] = result_of(node, args, kwargs)
                values[node] = known[alike]


def kind_of(value: Any) -> Any:
    """Equal for values of which an operator makes results of the same shapes."""
    if isinstance(value, (list, tuple)):
        return tuple(kind_of(own) for own in value)
    if isinstance(value, Tensor):
        return value.dtype, value.device, str([*value.shape]), str([*value.stride()])
    return type(value), str(value)


def makes_sizes(node: fx.Node) -> bool:
    """Whether a size or number of the result depends on values, so that it is another one each time."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags


def result_of(node: fx.Node, args: Any, kwargs: Any) -> Any:
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload) or target is operator.getitem or target.__module__ == ops.__name__:
        return target(*args, **kwargs)
    # A user's function of rows gives one number for each; it need not run on fake tensors.
    return args[0].new_empty(args[0].shape[:2], dtype=torch.float32)
