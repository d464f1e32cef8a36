"""What a step leaves in attributes in every call, for others to read, and once captured does not."""

from __future__ import annotations

from torch import nn

from ..checks import few
from ..passes.capture.structure import assignment_line
from ..passes.capture.tables import Tables
from ..runtime.method import StepMethod

NAMED = 3
"""So many places are named."""


def tell_of_what_is_left(method: StepMethod, model: nn.Module, tables: Tables) -> None:
    """Warn once of results that a step leaves in attributes: there is what an earlier call left."""
    names = [place_in_words(model, *place) for place in sorted(tables.derived)]
    if not names:
        return
    method.warn_once(
        f"{method} leaves what it computes in {few(names, NAMED)} in every call, and, "
        "once captured, in none: what is there stays as it is. Where your loop reads it, let the step return it; where "
        "nobody does, nothing is lost",
        topic="left",
    )


def place_in_words(model: nn.Module, path: str, name: str) -> str:
    """``'blocks.0.seen' (model.py:41)``, or what stands for it elsewhere than in an attribute of a module."""
    modules = dict(model.named_modules())
    if path not in modules:
        return f"{name!r} of {path}"
    if "_hooks" in name:
        return f"what a hook of {repr(path) if path else 'the model'} keeps"
    line = assignment_line(modules[path], name)
    return repr(f"{path}.{name}".removeprefix(".")) + (f" ({line})" if line else "")
