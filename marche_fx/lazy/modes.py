"""A step that runs because a late result is read runs as if the loop had called it there.

PyTorch asks a late tensor last: autograd and autocast are behind it by then, modes of the loop, such as
`FlopCounterMode`, are taken away, and other kinds of tensors may not speak for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _pop_mode, _push_mode

Own = TypeVar("Own", bound=Callable[..., Any])


def untraced(function: Own) -> Own:
    """``function``, which Dynamo is to leave alone, also while another thread traces.

    While any thread exports, a disabled function writes its name into a table of all threads, and fails where two do,
    unless it has this one.
    """
    function.__name__ = "__torch_dispatch__"
    return cast(Own, torch._disable_dynamo(function))


OUTSIDE: ContextVar[tuple[Any, Any, tuple[Any, ...]] | None] = ContextVar("OUTSIDE", default=None)
"""What PyTorch does before an operator where the loop uses a late tensor: its keys that are on and off, and modes."""


@contextmanager
def remembered() -> Iterator[None]:
    """Remember what is on."""
    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    token = OUTSIDE.set((included, excluded, tuple(_get_current_dispatch_mode_stack())))
    try:
        yield
    finally:
        OUTSIDE.reset(token)


@contextmanager
def put_back() -> Iterator[None]:
    """Have on again what was."""
    outside = OUTSIDE.get()
    if outside is None:
        yield
        return
    included, excluded, modes = outside
    missing = modes[len(_get_current_dispatch_mode_stack()) :]
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch._C._EnableTorchFunction():
        for mode in missing:
            _push_mode(mode)
        try:
            yield
        finally:
            for _ in missing:
                _pop_mode()
