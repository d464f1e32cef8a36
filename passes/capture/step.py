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
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ...errors import CaptureError, MarcheError, UnsupportedModelError, is_out_of_memory
from ..graph.source import CAPTURED, alike
from .arguments import check_results, closed, opened
from .branches import Branches, FromArguments
from .fixed import FixedSizes
from .left import is_left_again, is_plain
from .lines import first_line, first_line_of, model_frames
from .opaque import Calls, children_as_operators
from .refusals import refuse_assignments
from .structure import Place, attributes, changed_attributes
from .surroundings import Surroundings
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
        self.varying: set[Place] = set()
        """Of these, those of a plain value that another call of this kind would give another one."""
        self.surroundings = Surroundings()
        """What the step was seen to read beside the model."""
        self.real: Callable[[], list[Tensor]] | None = None
        """Gives the tensors that the step was called with, where branches on them are to be decided."""
        self.branches: Branches | None = None
        self.sizes: list[list[int]] = []
        """Of what it picked by values in the real call before its trace."""
        self.calls: Calls = {}
        """Of children that are called as they are, in that call."""
        self.owner = 0
        """What graphs call the model by of which they are children."""
        self.fixed_at = ""
        """The line that fixed a size of an argument, which a trace had as a symbol."""
        self.watched: Mapping[Place, Watched] = types.MappingProxyType({})

    @property
    def name(self) -> str:
        return f"{type(self.model).__name__}.{self.step}"

    @property
    def names(self) -> set[str]:
        """Of the method, and of the function that it is."""
        code = getattr(inspect.unwrap(getattr(self.model, self.step)), "__code__", None)
        return {self.step} if code is None else {self.step, code.co_name}

    def on(self, model: nn.Module, watched: Iterable[Place] = ()) -> Step:
        """The same step of a copy of the model, in which some attributes are watched."""
        step = Step(model, self.step, list(map(placeholder, self.plain, self.is_tensor)), self.spec)
        step.watched = types.MappingProxyType(watch(model, watched))
        return step

    def call(self, leaves: list[Tensor]) -> Any:
        call = self.arguments(leaves)
        args, kwargs = call
        results = getattr(self.model, self.step)(*args, **kwargs)
        written = self.written_argument(call, leaves)
        if written:
            raise UnsupportedModelError(
                f"{self.name} writes into {written}{self.line_that_writes(leaves)}, which a step that is only partly "
                "recomputed cannot repeat. Return what it leaves there; a cache of the model's own is best switched "
                "off, as by use_cache=False."
            )
        return opened(results)

    def arguments(self, leaves: list[Tensor]) -> Any:
        tensors = iter(leaves)
        merged = [next(tensors) if is_tensor else plain for plain, is_tensor in zip(self.plain, self.is_tensor)]
        return closed(pytree.tree_unflatten(merged, self.spec))

    def written_argument(self, call: Any, leaves: list[Tensor]) -> str:
        """The name of an argument of ``call`` that holds other objects than it was made with; empty where none does."""
        args, kwargs = opened(call)
        first_args, first_kwargs = opened(self.arguments(leaves))
        pairs = [(f"positional argument {number}", *own) for number, own in enumerate(zip(args, first_args))]
        pairs += [(f"argument {name!r}", kwargs[name], first_kwargs[name]) for name in kwargs]
        for name, now, first in pairs:
            (now_leaves, now_spec), (first_leaves, first_spec) = pytree.tree_flatten(now), pytree.tree_flatten(first)
            if now_spec != first_spec or any(a is not b for a, b in zip(now_leaves, first_leaves)):
                return name
        return ""

    def line_that_writes(self, leaves: list[Tensor]) -> str:
        """`` in model.py:41``: found by another call, watched line by line."""
        call = self.arguments(leaves)
        args, kwargs = call
        line = first_line(
            lambda: getattr(self.model, self.step)(*args, **kwargs),
            lambda: bool(self.written_argument(call, leaves)),
            model_frames(self.model),
        )
        return f" in {line}" if line else ""

    def forward(self, leaves: list[Tensor]) -> Any:
        before, around = attributes(self.model), self.surroundings.attributes()
        for watched in self.watched.values():
            watched.begin()
        asking = nullcontext() if self.real is None else FromArguments(leaves, self.real())
        fixing = FixedSizes(leaves)
        with attributes_restored(self.model), DetachedData(), fixing, asking:
            results = self.traced(leaves)
            changed = changed_attributes(before, attributes(self.model))
            self.note_what_is_left()
        if isinstance(asking, FromArguments):
            self.branches = asking.found()
        self.fixed_at = fixing.line
        # Counters and clocks outside of the model are for somebody else, as far as anyone can tell.
        self.written |= set(changed_attributes(around, self.surroundings.attributes()))
        self.written |= {place for place in changed if self.is_unread(place)}
        refuse_assignments(self.name, self.model, [place for place in changed if place not in self.written])
        check_results(f"{self.name}{first_line_of(getattr(self.model, self.step))}", results)
        return results

    def traced(self, leaves: list[Tensor]) -> Any:
        try:
            with children_as_operators(self.model, self.owner, self.calls):
                return self.call(leaves)
        except MarcheError:
            raise
        except Exception as error:
            # Here, before PyTorch sees it and prints the graph that there is by then.
            raise self.failure(error) from error

    def failure(self, error: Exception) -> Exception:
        """What is raised where a trace failed."""
        if isinstance(error, MarcheError) or is_out_of_memory(error):
            return error
        reason = next(iter(str(error).splitlines()), "")
        path, line = failing_place(self, error)
        what = f"torch.export cannot capture {self.name}{line}: {type(error).__name__}: {reason}\n"
        if "data-dependent" in reason or isinstance(error, DataDependentOutputException):
            return BranchError(what + BRANCHES + called_as_it_is(path))
        return CaptureError(what + TRACES + called_as_it_is(path))

    def note_what_is_left(self) -> None:
        """See which attributes the trace set and had not read, and in which of them is no plain value of its kind."""
        left = {place: own for place, own in self.watched.items() if own.was_set and not own.was_read}
        self.written |= left.keys()
        self.varying |= {
            place for place, own in left.items() if is_plain(own.first) and not is_left_again(own.value(), own.first)
        }

    def is_unread(self, place: Place) -> bool:
        """Whether what a call leaves at a place means nothing to the next, or a hook keeps it for somebody else."""
        path, name = place
        if place in self.watched:
            return not self.watched[place].was_read
        return "_hooks" in name or inspect.isroutine(vars(self.model.get_submodule(path)).get(name))


class DetachedData(TorchFunctionMode):
    """``weight.data`` as ``weight.detach()``, which a trace sees."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # A getter in C, of which PyTorch's types say that it is a tensor.
        if func == Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        return func(*args, **(kwargs or {}))


class BranchError(CaptureError):
    """The step asks for the value of a tensor."""


BRANCHES = (
    "A graph has one path, and this line asks Python for the value of a tensor that is not computed of the arguments "
    "alone, or for how many rows a mask keeps. Choose with torch.where instead of a branch, or move the branch out of "
    "the step. Where it loops over the experts that tokens chose, compute these for all tokens in products, as "
    "model.set_experts_implementation('grouped_mm') does in transformers, or loop over all experts."
)


TRACES = (
    "A step must be a function of its tensors that torch.export can trace; torch.export.draft_export(...) on the "
    "original lists what stands in the way. If the model is somebody else's: transform the network inside, "
    "marche_fx.transform(model.net); name the method that runs in each step, step='tokens_to_logits'; or switch off "
    "what the step does beside its result, as use_cache=False, flash=False or torch.nn.utils.remove_weight_norm."
)


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


def called_as_it_is(path: str) -> str:
    """What to write of a child that no trace sees through, if it is one."""
    if not path:
        return ""
    return (
        f" If {path!r} treats each token by itself, as a mixture of experts does, have it called as it is: "
        f"transform(model, token_wise={alike(path)!r})."
    )


def failing_place(step: Step, error: Exception) -> tuple[str, str]:
    """The module of the last frame of ``error`` in the model's own code, and where that is.

    ``("blocks.0", " at blocks.0 (model.py:41, `if x.sum() > 0:`)")``; both empty where it is in none.
    """
    paths = {id(module): path for path, module in step.model.named_modules()}
    is_of_model = model_frames(step.model)
    inside, place, found = False, "", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if frame.f_code is Step.call.__code__:
            inside = True
        elif inside and is_of_model(file):
            place = paths.get(id(frame.f_locals.get("self")), "")
            summary = traceback.FrameSummary(file, number, frame.f_code.co_name)
            source = f", `{summary.line}`" if summary.line else ""
            found = (f" at {place}" if place else "") + f" ({Path(file).name}:{number}{source})"
    return place, found


@contextmanager
def plain_mode() -> Iterator[None]:
    """Neither gradients nor inference mode, which would be recorded in the graph.

    Autocast stays on if it is: its casts become operators, and code that asks for a dtype gets the one it would get.
    """
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # torch.export copies its own tree specifications in a way that it deprecates itself.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
        # Nothing is compiled for a trace, whose operators are.
        warnings.filterwarnings("ignore", "torch.compile is ignored", UserWarning)
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile", UserWarning)
        yield
