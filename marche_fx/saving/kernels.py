"""What `torch.compile` made in this process, as files for the next one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

LIBRARY = re.compile(r"\w+/\w+(\.\w+)*\.so")
"""Path of a compiled kernel in the compiler's folder; nothing else is ever written there."""

Kernels = tuple[bytes | None, dict[str, bytes]]
"""Graphs, as `torch.compiler.save_cache_artifacts` has them, and libraries of C++ kernels, which those do not hold."""


def compiled_kernels() -> Kernels:
    """All that this process compiled or loaded so far."""
    # Takes a while to load, and few processes save anything.
    from torch._inductor.codecache import CppPythonBindingsCodeCache
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    artifacts = torch.compiler.save_cache_artifacts()
    libraries: dict[str, bytes] = {}
    for load in list(CppPythonBindingsCodeCache.cache.values()):
        library: Any = load()
        path = Path(library.__file__)
        # The folder may have been another one for a while, or be gone.
        if path.is_relative_to(cache_dir()) and path.is_file():
            libraries[path.relative_to(cache_dir()).as_posix()] = path.read_bytes()
    return None if artifacts is None else artifacts[0], libraries


def restore_kernels(kernels: Kernels) -> None:
    """Put them where `torch.compile` looks before it compiles."""
    from torch._inductor.codecache import write_atomic
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    artifacts, libraries = kernels
    for name, data in libraries.items():
        target = Path(cache_dir(), name)
        if LIBRARY.fullmatch(name) and not target.exists():
            # As the compiler does: another process may look at any moment.
            write_atomic(str(target), data, make_dirs=True)
    if artifacts is not None:
        torch.compiler.load_cache_artifacts(artifacts)
