"""What was done to a model: the methods that were replaced on its copy, and what of the copy is the original's."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, NoReturn

from torch import nn

from ..denoising import Denoising
from ..errors import ArgumentError, MarcheError
from ..head.step import HeadStep
from ..marks import ATTRIBUTE
from ..passes.capture.left import Left, leave
from ..passes.capture.structure import structure
from ..passes.graph.opaque import TOKEN_WISE
from ..recipes import Recipe
from ..runtime.method import Settings
from ..runtime.session import Session
from .step import OptimizedStep


class PlainChildren:
    """The children of a model without what is transformed inside of them: of these the originals.

    A critic may hold the network that it criticises. Its own step, transformed as a whole, is captured of what both
    were, since no step runs inside of the trace of another. Copies of the modules on the way stay the same ones, so
    that the model does not seem to be another.
    """

    def __init__(self) -> None:
        self.copies: dict[int, tuple[nn.Module, nn.Module]] = {}
        """By id of a module that holds a transformed one, it and its copy."""
        self.modules: dict[str, nn.Module | None] | None = None
        """Of the model, by name; None where none of them holds a transformed one."""

    def look(self, model: nn.Module) -> None:
        """See which modules hold transformed ones by now."""
        self.modules = self.within(model)

    def of(self, module: nn.Module) -> nn.Module:
        """The module, or its copy that holds originals."""
        if ATTRIBUTE in vars(module):
            return optimization_of(module).current()
        plain = self.within(module)
        if plain is None:
            return module
        own = self.copies.setdefault(id(module), (module, copy.copy(module)))[1]
        vars(own).update(vars(module), _modules=plain)
        rebind(own, module)
        return own

    def within(self, module: nn.Module) -> dict[str, nn.Module | None] | None:
        """Its children by name, each as `of` has it; None where that is what they are."""
        plain = {name: None if child is None else self.of(child) for name, child in module._modules.items()}
        return None if all(own is plain[name] for name, own in module._modules.items()) else plain


class Optimization:
    """What was done to one model: its steps, and the last session that ended, for `report`."""

    def __init__(
        self,
        model: nn.Module,
        steps: dict[str, OptimizedStep],
        others: Sequence[str],
        settings: Settings,
        transformed: Callable[[nn.Module, str], nn.Module],
        plain_children: PlainChildren,
    ) -> None:
        self.model = model
        self.transformed = transformed
        """Transforms a child, which is at a path, as this model was."""
        self.steps = steps
        self.heads: dict[str, HeadStep] = {}
        """Denoisers that were replaced, by path."""
        self.recipe: Recipe | None = None
        self.denoising: Denoising | str | None = None
        """How the heads were told to denoise."""
        self.told_loops: tuple[str, ...] = ()
        """Loop methods that the recipe is told to where their caller says nothing."""
        self.replaced = (*steps, *others)
        self.plain_children = plain_children
        self.settings = settings
        self.last_session: Session | None = None
        self.generations = 0
        """Sessions that ended, and in which a step was called."""
        self.has_cached = False
        """Whether a call in one of them computed fewer tokens than the original does."""
        self.optimized: weakref.ref[nn.Module] | None = None
        self.whole: Optimization | None = None
        """That of the model whose sessions are this one's, where it is a child that the model's loop calls."""
        self.path = ""
        """Of that child."""
        self.is_given_up = False
        """Whether it turned out that it cannot be transformed."""
        self.parts: dict[str, Optimization] = {}
        """Children that were found to be what the loop calls, by path."""
        self.refused: dict[str, str] = {}
        """Those that cannot be transformed, with why."""

    def update(self, view: nn.Module) -> None:
        """Give a copy of the original the attributes that the transformed model has by now."""
        optimized = None if self.optimized is None else self.optimized()
        if optimized is not None:
            for name, value in vars(optimized).items():
                if name != ATTRIBUTE and name not in self.replaced:
                    own = rebound(value, optimized, view) if callable(value) else value
                    if name == "_modules" and self.plain_children.modules is not None:
                        own = self.plain_children.modules
                    if own is value or not is_same_binding(vars(view).get(name), own):
                        vars(view)[name] = own

    def leave(self, left: Left) -> None:
        """Put into the transformed model what a step leaves in attributes."""
        optimized = None if self.optimized is None else self.optimized()
        if optimized is not None:
            leave(optimized, left)

    def look(self, view: nn.Module) -> None:
        """See what of the model is transformed by now, of which a copy of the original has the originals."""
        optimized = None if self.optimized is None else self.optimized()
        self.plain_children.look(self.model if optimized is None else optimized)
        self.update(view)

    def current(self) -> nn.Module:
        """The original with the attributes that the transformed model has by now."""
        view = next(iter(self.steps.values())).model
        self.update(view)
        return view

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ArgumentError(
            "a transformed model holds captured graphs, which cannot be copied or saved. Copy the original and "
            "transform the copy; save the weights, as in torch.save(model.state_dict(), path), and the graphs by "
            "marche_fx.save_captures."
        )

    def adopt(self, path: str) -> None:
        """Transform the child at ``path`` of the transformed model, for what it is called later."""
        optimized = None if self.optimized is None else self.optimized()
        if optimized is None:
            return
        original = optimized.get_submodule(path)
        child = self.transformed(original, path)
        part = optimization_of(child)
        part.whole = self
        part.path = part.settings.owner = path
        self.put(original, child)
        self.parts[path] = part

    def put(self, before: nn.Module, child: nn.Module) -> None:
        """Have ``child`` wherever the transformed model has ``before``; to its steps it is no other model for that."""
        optimized = None if self.optimized is None else self.optimized()
        if optimized is None:
            return
        view = self.current()
        seen = structure(view)
        put_everywhere(optimized, before, child)
        self.look(view)
        for step in self.steps.values():
            step.captures.take_in_own_change(seen)

    def give_back(self) -> None:
        """A step is called: children of which nothing was captured are not what the loop decodes with."""
        for path, part in list(self.parts.items()):
            child = None if part.optimized is None else part.optimized()
            if child is not None and not any(step.programs for step in part.steps.values()):
                part.is_given_up = True
                del self.parts[path]
                self.put(child, part.model)

    def give_up(self, error: MarcheError) -> None:
        """It is a child that the loop calls, and cannot be transformed: it is what it was, and the user told why."""
        self.is_given_up = True
        assert self.whole is not None
        self.whole.parts.pop(self.path, None)
        self.whole.refused[self.path] = str(error).splitlines()[0]
        own = None if self.optimized is None else self.optimized()
        if own is not None:
            # What runs in it by its own methods is then known to run in it.
            self.whole.put(own, self.model)


def optimization_of(optimized: nn.Module) -> Optimization:
    found = getattr(optimized, "__dict__", {}).get(ATTRIBUTE)
    if found is None:
        raise ArgumentError(
            f"{type(optimized).__name__} was not made by marche_fx.transform; use the object that transform returned"
        )
    return found


def rebound(value: Any, old: object, new: object) -> Any:
    """A method bound to one object as the same bound to another; anything else as it is."""
    if isinstance(value, MethodType) and value.__self__ is old:
        return MethodType(value.__func__, new)
    if type(value) is functools.partial:
        inner = rebound(value.func, old, new)
        return value if inner is value.func else functools.partial(inner, *value.args, **value.keywords)
    return value


def is_same_binding(before: Any, now: Any) -> bool:
    """Whether two methods, made anew each time, are one, so that nothing seems to have changed."""
    if type(before) is not type(now):
        return False
    if isinstance(now, functools.partial):
        parts = (before.args, before.keywords) == (now.args, now.keywords)
        return parts and is_same_binding(before.func, now.func)
    return bool(before == now)


def rebind(copied: nn.Module, original: nn.Module) -> None:
    """Methods that somebody put on the original instance are those of its copy."""
    for name, value in list(vars(copied).items()):
        vars(copied)[name] = rebound(value, original, copied)


def view_of(model: nn.Module, token_wise: tuple[str, ...] = ()) -> nn.Module:
    """A shallow copy of a model, to be captured in its place.

    Args:
        token_wise: paths of its children that are called as they are.
    """
    view = copy.copy(model)
    rebind(view, model)
    if token_wise:
        vars(view)[TOKEN_WISE] = token_wise
    return view


def put_child(model: nn.Module, path: str, child: nn.Module) -> None:
    """Have ``child`` at ``path``, in copies of the modules on the way there."""
    *parents, name = path.split(".")
    for parent in parents:
        own = copy.copy(model.get_submodule(parent))
        replace_child(model, parent, own)
        model = own
    replace_child(model, name, child)


def put_everywhere(model: nn.Module, before: nn.Module, child: nn.Module) -> None:
    """Have ``child`` wherever the model has ``before``: a critic may hold the network that it criticises."""
    for path in [path for path, module in model.named_modules(remove_duplicate=False) if module is before]:
        put_child(model, path, child)


def replace_child(parent: nn.Module, name: str, child: nn.Module) -> None:
    """Give a copy of a module another child; the original keeps its own."""
    parent._modules = {**parent._modules, name: child}
