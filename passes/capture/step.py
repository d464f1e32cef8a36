"""A model's method as a module of its tensors, and where in the model's own code a call of it failed."""

from __future__ import annotations

import inspect
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..graph.source import CAPTURED, is_library_frame
from .arguments import check_results, closed, opened
from .branches import Branches, FromArguments
from .refusals import refuse_assignments
from .structure import Place, attributes, changed_attributes
from .watched import Watched, watch


class Step(nn.Module):
    """A method of ``model`` on the tensors among its arguments as a module, which is what `torch.export` takes."""

    model: nn.Module

    def __init__(self, model: nn.Module, step: str, leaves: list[Any], spec: pytree.TreeSpec) -> None:
        super().__init__()
        setattr(self, CAPTURED, model)
        self.step = step
        self.plain = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]
        self.spec = spec
        self.training = model.training
        self.written: set[Place] = set()
        """Attributes that a traced call set and never read before, which are no state."""
        self.real: Callable[[], list[Tensor]] | None = None
        """Gives the tensors that the step was called with, where branches on them are to be decided."""
        self.branches: Branches | None = None
        self.watched: Mapping[Place, Watched] = types.MappingProxyType({})

    @property
    def name(self) -> str:
        return f"{type(self.model).__name__}.{self.step}"

    def on(self, model: nn.Module, watched: Iterable[Place] = ()) -> Step:
        """The same step of a copy of the model, in which some attributes are watched."""
        step = Step(model, self.step, list(map(placeholder, self.plain, self.is_tensor)), self.spec)
        step.watched = types.MappingProxyType(watch(model, watched))
        return step

    def call(self, leaves: list[Tensor]) -> Any:
        tensors = iter(leaves)
        merged = [next(tensors) if is_tensor else plain for plain, is_tensor in zip(self.plain, self.is_tensor)]
        args, kwargs = closed(pytree.tree_unflatten(merged, self.spec))
        return opened(getattr(self.model, self.step)(*args, **kwargs))

    def forward(self, leaves: list[Tensor]) -> Any:
        before = attributes(self.model)
        for watched in self.watched.values():
            watched.begin()
        asking = nullcontext() if self.real is None else FromArguments(leaves, self.real())
        with attributes_restored(self.model), asking:
            results = self.call(leaves)
            changed = changed_attributes(before, attributes(self.model))
        if isinstance(asking, FromArguments):
            self.branches = asking.found()
        self.written |= {place for place in changed if self.is_unread(place)}
        refuse_assignments(self.name, self.model, [place for place in changed if place not in self.written])
        check_results(self.name, results)
        return results

    def is_unread(self, place: Place) -> bool:
        """Whether what a call leaves at a place means nothing to the next, or a hook keeps it for somebody else."""
        path, name = place
        if place in self.watched:
            return not self.watched[place].was_read
        return "_hooks" in name or inspect.isroutine(vars(self.model.get_submodule(path)).get(name))


def placeholder(plain: Any, is_tensor: bool) -> Any:
    return torch.empty(()) if is_tensor else plain


@contextmanager
def attributes_restored(model: nn.Module) -> Iterator[None]:
    """Put back what the step makes of attributes, parameters and buffers: `torch.export` looks at them afterwards."""
    tables: list[Any] = [
        table for module in model.modules() for table in (vars(module), module._parameters, module._buffers)
    ]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, own in zip(tables, before):
            table.clear()
            table.update(own)


def failing_line(step: Step, error: Exception) -> str:
    """`` at blocks.0 (model.py:41, `if x.sum() > 0:`)``: the last frame of ``error`` in the model's own code."""
    paths = {id(module): path for path, module in step.model.named_modules()}
    inside, found = False, ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if frame.f_code is Step.call.__code__:
            inside = True
        elif inside and not is_library_frame(file):
            path = paths.get(id(frame.f_locals.get("self")))
            summary = traceback.FrameSummary(file, number, frame.f_code.co_name)
            source = f", `{summary.line}`" if summary.line else ""
            found = (f" at {path}" if path else "") + f" ({Path(file).name}:{number}{source})"
    return found


@contextmanager
def plain_mode() -> Iterator[None]:
    """Neither gradients nor inference mode, which would be recorded in the graph.

    Autocast stays on if it is: its casts become operators, and code that asks for a dtype gets the one it would get.
    """
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # torch.export copies its own tree specifications in a way that it deprecates itself.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
        yield
