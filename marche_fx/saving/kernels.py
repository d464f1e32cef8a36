"""What was compiled in this process, as files for the next one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..passes.lower.kept import KEPT, Stored

LIBRARY = re.compile(r"\w+/\w+(\.\w+)*\.so")
"""Path of a compiled kernel in the compiler's folder; nothing else is ever written there."""

Kernels = tuple[tuple[Stored, ...], dict[str, bytes]]
"""Compiled modules, and libraries of C++ kernels, which those do not hold."""


def compiled_kernels() -> Kernels:
    """All that this process compiled or loaded so far."""
    # Takes a while to load, and few processes save anything.
    from torch._inductor.codecache import CppPythonBindingsCodeCache
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    libraries: dict[str, bytes] = {}
    for load in list(CppPythonBindingsCodeCache.cache.values()):
        library: Any = load()
        path = Path(library.__file__)
        # The folder may have been another one for a while, or be gone.
        if path.is_relative_to(cache_dir()) and path.is_file():
            libraries[path.relative_to(cache_dir()).as_posix()] = path.read_bytes()
    return tuple(KEPT.all()), libraries


def restore_kernels(kernels: Kernels) -> None:
    """Put them where steps, and the compiler, look before they compile."""
    from torch._inductor.codecache import write_atomic
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    stored, libraries = kernels
    for name, data in libraries.items():
        target = Path(cache_dir(), name)
        if LIBRARY.fullmatch(name) and not target.exists():
            # As the compiler does: another process may look at any moment.
            write_atomic(str(target), data, make_dirs=True)
    KEPT.restore(stored)
