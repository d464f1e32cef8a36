"""Arguments of a step passed as they first were, so that one capture serves every way to pass them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Form = tuple[int, tuple[str, ...]]
"""How arguments are passed: how many by position, and the names of the others."""


class Forms:
    """How a step's arguments were first passed, for each set of them by name."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, ...], Form] = {}

    def as_first_passed(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call of ``function``."""
        form = (len(args), tuple(kwargs))
        if form in self.known.values():
            return args, kwargs
        try:
            signature = inspect.signature(function)
            arguments = signature.bind(*args, **kwargs).arguments
        except (TypeError, ValueError):
            return args, kwargs
        kinds = {name: signature.parameters[name].kind for name in arguments}
        if inspect.Parameter.VAR_POSITIONAL in kinds.values():
            return args, kwargs
        extra: dict[str, Any] = {}
        for name in [name for name, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD]:
            extra = arguments.pop(name)
        by_name = {**arguments, **extra}
        count, names = self.known.setdefault((*arguments, *sorted(extra)), form)
        positional = list(arguments)[:count]
        return tuple(by_name[name] for name in positional), {name: by_name[name] for name in names}
