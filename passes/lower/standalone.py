"""Compile a module by itself, without Dynamo: code that checks nothing, and the conditions under which it is right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .conditions import Conditions
from .vectors import granted_vectors


@dataclass(frozen=True)
class Ragged:
    """A dimension of an input that is of any size.

    Attributes:
        number: of the input. size: number of the size; dimensions with the same one are equal in every call.
    """

    number: int
    dim: int
    size: int


@dataclass(frozen=True)
class Code:
    """What a module was compiled to.

    Attributes:
        run: called with the tensors among its inputs.
    """

    run: Any
    conditions: Conditions

    def __call__(self, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        if self.conditions.baked:
            inputs = [own for own in inputs if isinstance(own, Tensor)]
        found: tuple[Tensor, ...] = self.run(*inputs)
        return found

    def data(self) -> bytes | None:
        """What `loaded` reads; None where PyTorch cannot write it."""
        # So it marks code that it does not cache, as for a kernel that nobody told it how to name.
        if self.run.inner_fn.serialize is None:
            return None
        found: bytes = self.run.serialize()
        return found

    @classmethod
    def loaded(cls, data: bytes, conditions: Conditions) -> Code:
        from torch._inductor.standalone_compile import AOTCompiledArtifact

        with granted_vectors():
            return cls(AOTCompiledArtifact.deserialize(data), conditions)


def compile_alone(
    module: fx.GraphModule, inputs: Sequence[Any], ragged: Sequence[Ragged], lengths: Sequence[tuple[int, int]] = ()
) -> Code:
    """``module`` as code for ``inputs`` and all that differ from them in ``ragged`` sizes and ``lengths`` alone.

    A size of 0 or 1 is one that code is made for, as compilers treat it. No two inputs may share memory if one of them
    is written. Nobody else may trace meanwhile, see `tracing_alone`.
    """
    # The compiler takes a second to load, so it waits until something is compiled.
    from torch._dispatch.python import enable_python_dispatcher
    from torch._inductor import standalone_compile
    from torch._subclasses import FakeTensorMode
    from torch._subclasses.fake_tensor import disable_fake_tensor_cache
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    dynamic = {(own.number, own.dim) for own in ragged} | {*lengths}
    open_dims = [
        {dim for number, dim in dynamic if number == own and inputs[own].shape[dim] > 1} for own in range(len(inputs))
    ]
    # Not as inference tensors, of which a compiled graph would be one of inference mode alone.
    with torch.inference_mode(False), torch.no_grad():
        fakes = [
            fake(mode, own, dims, f"x{number}") if isinstance(own, Tensor) else own
            for number, (own, dims) in enumerate(zip(inputs, open_dims))
        ]
        tensors = [own for own in fakes if isinstance(own, Tensor)]

        def of_tensors(*given: Tensor) -> Any:
            rest = iter(given)
            return module(*(next(rest) if isinstance(own, Tensor) else own for own in fakes))

        # The mode's own memory of shapes compares symbols, which takes longer than to compute most of them.
        with torch._guards.tracing(torch._guards.TracingContext(mode)), disable_fake_tensor_cache(mode):
            # By the dispatcher that compilers trace with, without which torch 2.11 multiplies no rows of an open size.
            with mode, enable_python_dispatcher():
                # Without our own functions in it, PyTorch knows how to write it to a file.
                traced = make_fx(of_tensors)(*tensors)
            with granted_vectors():
                run = standalone_compile(traced, [*tensors], dynamic_shapes="from_tracing_context", aot=True)
    numbers = [number for number, dims in enumerate(open_dims) if dims]
    relations = [*assumed(mode.shape_env, [fakes[number] for number in numbers], numbers), *equal_sizes(ragged)]
    return Code(run, Conditions.of(inputs, numbers, relations))


def fake(mode: Any, tensor: Tensor, dims: Collection[int], name: str) -> Tensor:
    """A stand-in for ``tensor``, of any size along ``dims``, and for no other tensor."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    sizes = [DimDynamic.DYNAMIC if dim in dims else DimDynamic.STATIC for dim in range(tensor.ndim)]
    context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
    found: Tensor = mode.from_tensor(twin(tensor), symbolic_context=context, source=ConstantSource(name))
    return found


def twin(tensor: Tensor) -> Tensor:
    """A tensor like ``tensor`` that is no other's, so that one that is given twice has two stand-ins."""
    if not tensor.is_inference():
        return tensor.detach()
    # What is made of an inference tensor is one too, and cannot be written outside of inference mode.
    end = tensor.storage_offset() + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride())) + 1
    memory = torch.empty(max(end, 0), dtype=tensor.dtype, device=tensor.device)
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def assumed(shapes: Any, fakes: Sequence[Tensor], numbers: Sequence[int]) -> list[str]:
    """What code was made for of sizes and strides, as expressions of ``x[number]`` for each stand-in."""
    found = shapes.produce_guards_expression(fakes, ignore_static=False) or "True"
    for place, number in reversed(list(enumerate(numbers))):
        found = found.replace(f"L['t{place}']", f"x[{number}]")
    return [found]


def equal_sizes(ragged: Sequence[Ragged]) -> list[str]:
    """That dimensions of the same size are: not every operator tells the compiler that it relies on it."""
    first: dict[int, Ragged] = {}
    pairs = [(first.setdefault(own.size, own), own) for own in ragged]
    return [f"{size_of(one)} == {size_of(own)}" for one, own in pairs if one is not own]


def size_of(own: Ragged) -> str:
    return f"x[{own.number}].size({own.dim})"
