"""A model that a user names: ``module:function`` returns it and a function that decodes with it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ArgumentError, MarcheError
from .workload import Workload, recorded_workload

OPTIONS = ("step", "loop", "query")


def user_workload(spec: str) -> Workload:
    """The decoding steps of one generation of the model that ``module:function`` returns.

    The function takes nothing and returns ``(model, run)``. ``run(given)`` makes one generation with ``given``, a model
    like the returned one; inside ``with marche_fx.decoding(given):`` where the loop is its own. ``(model, run,
    options)`` passes ``step``, ``loop`` and ``query`` on to `transform`. The module is looked for in the working
    directory too.

    Raises:
        ArgumentError: there is no such function, it or ``run`` raises, or it returns something else.
    """
    model, run, options = returned(spec, found(spec))
    try:
        return recorded_workload(model.eval(), run, name=spec, **options)
    except MarcheError as error:
        raise type(error)(f"{spec}: {error}") from error
    except Exception as error:
        raise failed(spec, "decoding with its run", error) from error


def found(spec: str) -> Callable[[], Any]:
    """The function that ``module:function`` names."""
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ArgumentError(f"a model is named as module:function, got {spec!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ArgumentError(f"{spec}: there is no module {error.name!r} here or on the Python path") from error
        raise failed(spec, f"importing {module_name}", error) from error
    except Exception as error:
        raise failed(spec, f"importing {module_name}", error) from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [own for own, value in vars(module).items() if callable(value) and not own.startswith("_")]
        raise ArgumentError(f"{spec}: {module_name} has no function {name!r}; it has {', '.join(known) or 'none'}")
    return function


def returned(spec: str, function: Callable[[], Any]) -> tuple[nn.Module, Callable[[nn.Module], Any], dict[str, Any]]:
    """What the function returns: a model, how to decode with it, and options of `transform`."""
    try:
        result = function()
    except Exception as error:
        raise failed(spec, "calling it", error) from error
    parts = result if isinstance(result, tuple) else (result,)
    is_pair = len(parts) in (2, 3) and isinstance(parts[0], nn.Module) and callable(parts[1])
    if not is_pair:
        got = ", ".join(type(own).__name__ for own in parts)
        raise ArgumentError(
            f"{spec} must return (model, run): a torch.nn.Module and a function that decodes with it; got ({got})"
        )
    options = parts[2] if len(parts) == 3 else {}
    if not isinstance(options, Mapping) or not set(options) <= set(OPTIONS):
        raise ArgumentError(f"{spec}: the third thing returned must be a dict of {', '.join(OPTIONS)}; got {options!r}")
    return parts[0], parts[1], dict(options)


def failed(spec: str, doing: str, error: Exception) -> ArgumentError:
    return ArgumentError(f"{spec}: {doing} raised {type(error).__name__}: {error}")
