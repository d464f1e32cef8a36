"""Copies of a model's modules, on which a capture runs: what tracing does to attributes, the original never sees."""

from __future__ import annotations

import contextlib
import functools
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import PLAIN

KEPT = (*PLAIN, Tensor, type, types.ModuleType, types.BuiltinFunctionType, types.CodeType, torch.jit.ScriptModule)
"""What a copy shares with the original."""

LIBRARIES = frozenset(
    (
        *("torch", "numpy", "logging", "threading", "weakref", "asyncio", "concurrent", "multiprocessing"),
        __name__.partition(".")[0],
    )
)
"""Packages whose objects are no part of a model's state, modules and containers apart."""


def copy_modules(model: nn.Module) -> nn.Module:
    """``model`` with copies of all its modules and of what they hold: containers, objects, bound methods, closures.

    Parameters, buffers and other tensors are shared, and what was one object is one object in the copy too. Of what
    `torch.compile` made there is what it was made of.
    """
    copied: nn.Module = Copies().of(model)
    return copied


class Copies:
    """Copies that refer to one another as the originals do."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.originals: list[Any] = []
        """Kept, so that nothing else gets the id of one of them."""

    def of(self, value: Any) -> Any:
        if isinstance(value, nn.Module):
            return self.of_module(value)
        if isinstance(value, KEPT):
            return value
        if id(value) in self.made:
            return self.made[id(value)]
        kind = next((own for own in COPY if isinstance(value, own)), object)
        return COPY[kind](self, value) if kind is not object else self.of_object(value)

    def note(self, original: Any, copy: Any) -> Any:
        self.originals.append(original)
        self.made[id(original)] = copy
        return copy

    def of_module(self, original: nn.Module) -> nn.Module:
        if isinstance(original, torch.jit.ScriptModule):
            return original
        # A model and its shallow copies, as `transform` makes them, have one table of parameters.
        own = vars(original)["_parameters"]
        if id(own) in self.made:
            return self.made[id(own)]
        copy = self.note(own, object.__new__(type(original)))
        for name, value in list(vars(original).items()):
            if name in ("_parameters", "_buffers"):
                vars(copy)[name] = {own: self.of_weight(tensor) for own, tensor in list(value.items())}
            else:
                vars(copy)[name] = self.of(value)
        vars(copy).pop("_compiled_call_impl", None)
        return copy

    def of_weight(self, original: Tensor | None) -> Tensor | None:
        """The weight itself, unless it was made in inference mode: a trace does not take such tensors."""
        if original is None or not original.is_inference():
            return original
        if id(original) not in self.made:
            with torch.inference_mode(False):
                values = original.clone()
                is_parameter = isinstance(original, nn.Parameter)
                self.note(original, nn.Parameter(values, requires_grad=False) if is_parameter else values)
        found: Tensor = self.made[id(original)]
        return found

    def with_attributes(self, original: Any, copy: Any) -> Any:
        """``copy`` with the attributes that a subclass of a built-in type adds."""
        if getattr(original, "__dict__", None):
            vars(copy).update({name: self.of(value) for name, value in list(vars(original).items())})
        return copy

    def of_dict(self, original: dict[Any, Any]) -> Any:
        kind: Any = next(own for own in (OrderedDict, defaultdict, dict) if isinstance(original, own))
        copy = self.note(original, kind.__new__(type(original)))
        if kind is defaultdict:
            # For mypy the copy is a dict, whatever the kind.
            copy.default_factory = self.of(original.default_factory)  # type: ignore[attr-defined]
        for key, value in list(kind.items(original)):
            kind.__setitem__(copy, self.of(key), self.of(value))
        return self.with_attributes(original, copy)

    def of_view(self, original: types.MappingProxyType[Any, Any]) -> Any:
        return self.note(original, types.MappingProxyType(self.of(original.copy())))

    def of_list(self, original: list[Any]) -> Any:
        copy = self.note(original, list.__new__(type(original)))
        list.extend(copy, [self.of(value) for value in list(original)])
        return self.with_attributes(original, copy)

    def of_deque(self, original: deque[Any]) -> Any:
        copy = self.note(original, deque.__new__(type(original)))
        deque.__init__(copy, [self.of(value) for value in list(original)], original.maxlen)
        return self.with_attributes(original, copy)

    def of_set(self, original: set[Any]) -> Any:
        copy = self.note(original, set.__new__(type(original)))
        set.update(copy, [self.of(value) for value in list(original)])
        return self.with_attributes(original, copy)

    def of_tuple(self, original: tuple[Any, ...]) -> Any:
        items = [self.of(value) for value in original]
        if all(new is old for new, old in zip(items, original)):
            return self.note(original, original)
        return self.note(original, tuple.__new__(type(original), items))

    def of_frozenset(self, original: frozenset[Any]) -> Any:
        return self.note(original, frozenset.__new__(type(original), [self.of(value) for value in original]))

    def of_method(self, original: types.MethodType) -> Any:
        return self.note(original, types.MethodType(self.of(original.__func__), self.of(original.__self__)))

    def of_partial(self, original: functools.partial[Any]) -> Any:
        keywords = {name: self.of(value) for name, value in original.keywords.items()}
        copy = functools.partial(self.of(original.func), *map(self.of, original.args), **keywords)
        return self.with_attributes(original, self.note(original, copy))

    def of_function(self, original: types.FunctionType) -> Any:
        """A function that closes over copies."""
        compiled_from = getattr(original, "_torchdynamo_orig_callable", None)
        if compiled_from is not None:
            return self.of(compiled_from)
        if original.__closure__ is None or original.__module__.partition(".")[0] in LIBRARIES:
            return original
        cells = tuple(self.of_cell(cell) for cell in original.__closure__)
        copy = types.FunctionType(
            original.__code__, original.__globals__, original.__name__, original.__defaults__, cells
        )
        self.note(original, copy)
        copy.__kwdefaults__, copy.__module__ = original.__kwdefaults__, original.__module__
        copy.__qualname__, copy.__doc__ = original.__qualname__, original.__doc__
        for new, cell in zip(cells, original.__closure__):
            if cell_is_full(cell) and not cell_is_full(new):
                new.cell_contents = self.of(cell.cell_contents)
        return self.with_attributes(original, copy)

    def of_cell(self, original: types.CellType) -> types.CellType:
        # Filled later: a function may close over itself.
        found: types.CellType = self.made.get(id(original)) or self.note(original, types.CellType())
        return found

    def of_object(self, original: Any) -> Any:
        """An object of a class written in Python, unless it holds nothing or what a copy would not own."""
        kind = type(original)
        if kind.__module__.partition(".")[0] in LIBRARIES or hasattr(kind, "__del__"):
            return original
        attributes = instance_attributes(original)
        if not attributes:
            return original
        try:
            copy = object.__new__(kind)
        except TypeError:
            # It has a part that is written in C.
            return original
        self.note(original, copy)
        for name, value in attributes.items():
            object.__setattr__(copy, name, self.of(value))
        return copy


COPY: dict[type, Callable[[Copies, Any], Any]] = {
    dict: Copies.of_dict,
    list: Copies.of_list,
    deque: Copies.of_deque,
    set: Copies.of_set,
    tuple: Copies.of_tuple,
    frozenset: Copies.of_frozenset,
    types.MappingProxyType: Copies.of_view,
    types.MethodType: Copies.of_method,
    functools.partial: Copies.of_partial,
    types.FunctionType: Copies.of_function,
}


def cell_is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def instance_attributes(value: Any) -> dict[str, Any]:
    """What an object holds by name, in its ``__dict__`` and its slots; nothing for what is written in C."""
    try:
        found = dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        found = {}
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            # A private name is kept under that of its class.
            own = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            if isinstance(vars(kind).get(own), types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):
                    found[own] = object.__getattribute__(value, own)
    return found
