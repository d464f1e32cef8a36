"""What was compiled in this process, as files for the next one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..passes.lower.kept import KEPT, Stored

LIBRARY = re.compile(r"\w+/\w+(\.\w+)*\.so")
"""Path of a compiled kernel in the compiler's folder; nothing else is ever written there."""

Kernels = tuple[tuple[Stored, ...], dict[str, bytes]]
"""Compiled modules, and libraries of C++ kernels and of the compiler's probes, which those do not hold."""


def compiled_kernels() -> Kernels:
    """All that this process compiled or loaded so far."""
    # Takes a while to load, and few processes save anything.
    from torch._inductor.codecache import CppPythonBindingsCodeCache
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    loaded: list[Any] = [load() for load in list(CppPythonBindingsCodeCache.cache.values())]
    folder = Path(cache_dir())
    paths = [*(Path(own.__file__) for own in loaded), *probes(folder)]
    # The folder may have been another one for a while, or be gone.
    own = [path for path in paths if path.is_relative_to(folder) and path.is_file()]
    return tuple(KEPT.all()), {path.relative_to(folder).as_posix(): path.read_bytes() for path in own}


def probes(folder: Path) -> Iterator[Path]:
    """Libraries of a few lines by which the compiler finds out, in every process, which instructions it may use.

    To compile them takes longer than all else that a second process does. Kernels have a part in their names, as in
    ``c5omhm.main.so``.
    """
    return (path for path in folder.glob("*/*.so") if path.suffixes == [".so"])


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
