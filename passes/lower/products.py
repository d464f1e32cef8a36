"""Products with float32 weights by oneDNN, which on many CPUs is faster than the library that `aten.linear` calls."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.library import Library
from torch.nn import functional as F

from ..graph.operands import operands

LIBRARY = Library("marche_fx", "DEF")
LIBRARY.define("linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor")

SMALL = 2**18
"""Elements of a weight: with fewer, choosing a kernel, which oneDNN does at every call, takes longer than it saves for
few rows, and saves a tenth at most for many."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [.., D] @ weight.T [D, E] + bias [E]``: ``[.., E]``.

    The weight stays as it is: no packed copy, which would take the memory twice and miss later changes.
    """
    # Asked again, for a model may have been moved or cast since its step was compiled.
    if not is_small(weight) and is_plain(x) and is_faster():
        return onednn(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def is_faster() -> bool:
    """Whether oneDNN takes less time than `aten.linear` for large weights, by what was measured of both.

    With AVX-512, at any number of threads, as MKL does without it where the processor is not Intel's; with AVX2 only
    where several threads share few rows. One thread with AVX2 takes a tenth to a fifth longer.
    """
    return torch.get_num_threads() > 1 or torch.backends.cpu.get_cpu_capability() == "AVX512"


def is_small(weight: Tensor) -> bool:
    return weight.numel() < SMALL


def shape_of_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


onednn = torch.ops.mkldnn._linear_pointwise.default
LIBRARY.impl("linear", linear, "CompositeExplicitAutograd")
LIBRARY.impl("linear", shape_of_linear, "Meta")
# There the original's product is one of lower precision.
LIBRARY.impl("linear", F.linear, "AutocastCPU")


def use_onednn(graph: fx.Graph, *, packed: bool = False) -> None:
    """Have oneDNN multiply by weights where it pays; ``torch.backends.mkldnn.enabled = False`` forbids it.

    Args:
        packed: by packed copies of them, of small ones too.

    Before:  y = aten.linear(x, weight, bias)
    After:   y = marche_fx.linear(x, weight, bias), or marche_fx.packed_linear(x, weight, bias)
    """
    if not has_onednn():
        return
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        weight = operands(node)[1]
        if weight is None or weight.op != "placeholder" or not is_plain(weight.meta["val"]):
            continue
        if packed:
            node.target = torch.ops.marche_fx.packed_linear.default
        elif not is_small(weight.meta["val"]):
            node.target = torch.ops.marche_fx.linear.default


def multiply_by_onednn(module: fx.GraphModule, *, packed: bool = False) -> None:
    """The same for a module that is run operator by operator, in place."""
    use_onednn(module.graph, packed=packed)
    module.recompile()


def has_onednn() -> bool:
    """Whether oneDNN is there and not forbidden."""
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def is_plain(x: Tensor) -> bool:
    """Whether it is float32 in the CPU's memory. `aten.linear` uses oneDNN itself for lower precisions."""
    return x.dtype is torch.float32 and x.device.type == "cpu"
