"""Loops that call a child of the transformed model and never its step: the child is transformed, and the user told.

Many packages wrap the network: the object with the loop calls ``self.net(tokens)`` and its own ``forward`` only trains.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from ..checks import few
from ..lazy.frames import first_argument, forwards_running, is_method_of
from ..lazy.modes import untraced
from ..passes.graph.source import is_within

ENOUGH = 2
"""So many calls of one child in a session in which no step ran, and it is what the loop decodes with."""

MOST_NAMED = 4
"""Children that are named of those that a loop called; of more, as of the layers one by one, it is told how many."""

NO_ATTENTION = "found no attention over a token axis"
"""So begins why most modules that are no networks cannot be transformed."""

LIBRARY = str(Path(torch.__file__).parent)


@dataclass
class Child:
    """A child that the loop calls itself.

    Attributes:
        calls: how often. methods: of the model, those that call it and are themselves called anew each time.
        inner: the same of modules around it, by path and name.
        frame: that of its last call.
    """

    module: nn.Module
    calls: int = 0
    methods: set[str] = field(default_factory=set)
    inner: set[tuple[str, str]] = field(default_factory=set)
    frame: FrameType | None = None


class ChildCalls:
    """Which children of a model are called in a session, until a step runs that can be captured.

    PyTorch calls hooks for every module of the process; these are there for no longer than they are needed.

    Args:
        model: whose children. original: of which it was made, and which has the same ones. is_here: whether a call now
            is one of the session.
        found: told the path of a child that the loop itself has called `ENOUGH` times.
    """

    def __init__(
        self, model: nn.Module, original: nn.Module, is_here: Callable[[], bool], found: Callable[[str], None]
    ) -> None:
        self.model = model
        self.original = original
        self.calls_of_original = 0
        """Calls of children by its ``forward``, which nobody caches."""
        self.paths: dict[int, str] = {}
        """By id of a module."""
        self.known: list[nn.Module] = []
        """These modules, so that no other one has such an id."""
        self.listed: set[str] = set()
        """Layers of a list, of which each sees what the one before made."""
        self.is_here = is_here
        self.found = found
        self.children: dict[str, Child] = {}
        self.inside: list[int] = []
        """Ids of the model's modules that are running."""
        self.running: FrameType | None = None
        """That of the last call of a module by its ``forward``."""
        self.handles: list[RemovableHandle] = []

    def look(self) -> None:
        """Know the modules that the model has by now, beside those that it had, which the loop may still hold.

        A child that was transformed, and the modules on the way to it, are copies.
        """
        for path, module in self.model.named_modules():
            if path and id(module) not in self.paths:
                self.paths[id(module)] = path
                self.known.append(module)
            if isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
                self.listed |= {f"{path}.{name}".removeprefix(".") for name, _ in module.named_children()}

    def start(self) -> None:
        """Begin, or go on, to note calls."""
        self.stop()
        self.look()
        self.handles = [
            register_module_forward_pre_hook(self.before),
            register_module_forward_hook(self.after, always_call=True),
        ]

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        self.running = None
        for child in self.children.values():
            child.frame = None

    def before(self, module: nn.Module, args: Any) -> None:
        if not self.handles or id(module) not in self.paths or not self.is_here():
            return
        self.inside.append(id(module))
        if len(self.inside) == 1:
            self.note(self.paths[id(module)], module)

    def after(self, module: nn.Module, args: Any, result: Any) -> None:
        if self.inside and self.inside[-1] == id(module):
            self.inside.pop()

    # Code that `torch.compile` traces beside the session stops here: Dynamo knows of no frames.
    @untraced
    def note(self, path: str, module: nn.Module) -> None:
        frame = calling_frame()
        if self.is_of_original(frame):
            self.calls_of_original += 1
            return
        running = self.outermost_running(path, frame)
        if running is not None:
            path, module, own = running
            if own is self.running:
                # Still the same call of it.
                return
            self.running, frame = own, calling_frame(own)
        child = self.children.setdefault(path, Child(module))
        child.calls += 1
        if child.frame is not None and frame is not child.frame:
            # The loop is further out.
            if self.is_method(frame):
                child.methods.add(frame.f_code.co_name)
            elif (around := self.module_of(frame)) is not None:
                child.inner.add((around, frame.f_code.co_name))
        child.frame = frame
        if child.calls == ENOUGH and not child.methods and path not in self.listed and not is_layer(module):
            self.found(path)
            self.look()

    def outermost_running(self, path: str, frame: FrameType | None) -> tuple[str, nn.Module, FrameType] | None:
        """The outermost module around that at ``path`` whose ``forward`` runs, and its frame; None where none does.

        PyTorch calls no hooks where a method calls ``self.forward`` itself, as one that guides it does.
        """
        found = None
        for own, running in forwards_running(frame):
            around = self.paths.get(id(own), path)
            found = (around, own, running) if path.startswith(f"{around}.") else found
        return found

    def is_of_original(self, frame: FrameType | None) -> bool:
        """Whether the original runs, which the loop still holds."""
        return any(own is self.original for own, _ in forwards_running(frame))

    def is_method(self, frame: FrameType) -> bool:
        """Whether a frame is of a method of the model, which can be named as its step; helpers of a loop cannot."""
        return is_method_of(self.model, frame.f_code.co_name, frame)

    def module_of(self, frame: FrameType) -> str | None:
        """The path of the module whose method a frame is of, as of a network that the loop decodes with by methods."""
        own = first_argument(frame)
        return self.paths.get(id(own)) if is_method_of(own, frame.f_code.co_name, frame) else None


def is_layer(module: nn.Module) -> bool:
    """Whether a module is one layer of PyTorch's, as an embedding that a loop calls before the network it belongs to.

    None has attention: PyTorch's own attention is made of further layers.
    """
    return type(module).__module__.startswith("torch.nn.modules.") and next(module.children(), None) is None


def inner_methods(children: dict[str, Child]) -> dict[str, list[str]]:
    """By path the methods of modules of the model that run in each step, in the order in which a step calls them."""
    found: dict[str, dict[str, None]] = {}
    for child in children.values():
        for path, name in sorted(child.inner):
            found.setdefault(path, {})[name] = None
    # A head that is called by a method, too, is a part of the network that is.
    return {path: list(own) for path, own in found.items() if not is_within(path, found)}


def calling_frame(called: FrameType | None = None) -> FrameType:
    """The frame of the code that calls a module, or what is ``called``, outside of PyTorch and of this file."""
    frame = sys._getframe(1) if called is None or called.f_back is None else called.f_back
    while frame.f_back is not None and frame.f_code.co_filename.startswith((LIBRARY, __file__)):
        frame = frame.f_back
    return frame


def told(
    kind: str,
    steps: str,
    children: dict[str, Child],
    adopted: list[str],
    refused: dict[str, str],
    *,
    ran: bool,
    ran_itself: bool = False,
) -> str | None:
    """What a user is told of a session whose loop called children; None where it called none.

    Args:
        adopted: children that were transformed. refused: those that cannot be, with why. ran: whether the loop called
            what was transformed. ran_itself: whether it called a step of the model, after children.
    """
    if not children:
        return None
    outermost = [path for path in children if not is_within(path, children)]
    called = few(map(repr, outermost), MOST_NAMED)
    start = f"the loop never called {steps} of {kind}, which was to be transformed, but {called}. "
    if ran_itself:
        start = f"the loop called {called} of {kind} itself, before {steps}, which was to be transformed. "
    if adopted:
        # Whether one can be transformed shows when it is called; what holds no module has no attention.
        able = [path for path in adopted if ran or path not in children or next(children[path].module.children(), None)]
        lines = "; ".join(f"model.{path} = marche_fx.transform(model.{path})" for path in able)
        if not ran and able:
            # Such as ``decode = self.net.guided`` before the loop.
            return (
                f"{start}The loop had taken hold of what it calls before it was transformed, so nothing was cached in "
                f"this generation; the next ones use it. To have it from the first on, and to choose how, write {lines}"
            )
        # That a head or an embedding stays what it is, is no news.
        stay = {path: why for path, why in refused.items() if path in outermost and not why.startswith(NO_ATTENTION)}
        those = "these are transformed from their second call on"
        if stay:
            named = " and ".join(f"{path!r}" for path in able)
            those = f"{named} {'is' if len(able) == 1 else 'are'} transformed from the second call on"
        rest = "".join(f". {path!r} cannot be transformed: {why}" for path, why in stay.items())
        return f"{start}So {those}. To choose how, write {lines}{rest}"
    methods = sorted({name for child in children.values() for name in child.methods})
    names = " or ".join(f"step={name!r}" for name in methods)
    refusing = [path for path, why in refused.items() if not why.startswith(NO_ATTENTION)]
    inner = {
        path: own
        for path, own in inner_methods(children).items()
        if path not in refusing and not is_within(path, refusing)
    }
    if inner:
        lines = " or ".join(
            f"model.{path} = marche_fx.transform(model.{path}, step={own})" for path, own in inner.items()
        )
        others = f"; or name one of the model's, marche_fx.transform(model, {names})" if methods else ""
        return (
            f"{start}No step ran, and nothing was cached. They were called by methods that run in each step: transform "
            f"the child that has them, {lines}, and decode inside `with marche_fx.decoding(model.{next(iter(inner))}):`"
            f"{others}"
        )
    if methods:
        # What draws numbers can be no step; the network that it calls can.
        able = [path for path in outermost if children[path].methods and not is_layer(children[path].module)]
        lines = "; ".join(f"model.{path} = marche_fx.transform(model.{path})" for path in able)
        inside = f"decode inside `with marche_fx.decoding(model.{able[0]}):`" if able else ""
        return (
            f"{start}No step ran, and nothing was cached. They were called by a method that runs in each step: name "
            f"it, marche_fx.transform(model, {names})"
            + (f"; or, where it draws random numbers, transform what it calls, {lines}, and {inside}" if able else "")
        )
    if all(is_layer(own.module) for own in children.values()):
        refused = {**dict.fromkeys(children, f"{NO_ATTENTION}, it is one layer."), **refused}
    if refused:
        path, why = min(refused.items(), key=lambda own: own[1].startswith(NO_ATTENTION))
        return f"{start}No step ran, and nothing was cached. {path!r} cannot be transformed: {why}"
    return (
        f"{start}No step ran, and nothing was cached. Put what is called in each step into one method of the model, "
        "and name it: marche_fx.transform(model, step=...)"
    )
