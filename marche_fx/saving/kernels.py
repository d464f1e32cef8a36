"""What was compiled of a model, in a file of its own: it is code, which does whatever it was written to do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.optimization import Optimization
from ..passes.lower.compiled import Compiled
from ..passes.lower.conditions import Conditions
from ..passes.lower.kept import KEPT, Stored
from ..passes.written.refused import UnusableError, malformed_is_unusable
from ..passes.written.values import VALUES, checked
from .container import compact, read_container, write_container
from .signing import LENGTH, UNSIGNED, NoSecretError, is_signed, sign

SUFFIX = ".kernels"
"""Of the file beside that of what was captured."""

HEADING = b"marche_fx kernels 1\n"

LIBRARY = re.compile(r"\w+/\w+(\.\w+)*\.so")
"""Path of a compiled kernel in the compiler's folder; nothing else is ever written there."""


@dataclass(frozen=True)
class Kernels:
    """Compiled modules, and libraries of C++ kernels and of the compiler's probes, which those do not hold."""

    modules: tuple[Stored, ...]
    libraries: dict[str, bytes]


def kernels_of(optimization: Optimization) -> Kernels:
    """What was compiled of a model, and nothing of another's."""
    # Takes a while to load, and few processes save anything.
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    modules = {(own.key, own.data): own for compiled in compiled_modules(optimization) for own in compiled.stored()}
    if not modules:
        return Kernels((), {})
    folder = Path(cache_dir())
    paths = [*libraries_of([own.data for own in modules.values()]), *probes(folder)]
    # The folder may have been another one for a while, or be gone.
    found = {path for path in paths if path.is_relative_to(folder) and path.is_file()}
    libraries = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}
    return Kernels(tuple(modules.values()), libraries)


def compiled_modules(optimization: Optimization) -> Iterator[Compiled]:
    for step in optimization.steps.values():
        for lowered in step.captures.shared.known:
            yield from lowered.code
    for head in optimization.heads.values():
        for program in head.programs.values():
            for module in program.lowered.values():
                yield from (node.target for node in module.graph.nodes if isinstance(node.target, Compiled))


def libraries_of(codes: Iterable[bytes]) -> Iterator[Path]:
    """The libraries that compiled modules call: each holds the text of the Python module by which it is called."""
    from torch._inductor.codecache import PyCodeCache

    texts = [*codes]
    for module in PyCodeCache.modules:
        source = Path(module.__file__ or "")
        if not source.is_file() or not any(source.read_bytes() in text for text in texts):
            continue
        for value in list(vars(module).values()):
            library = getattr(getattr(value, "__self__", None), "__file__", None)
            if library is not None:
                yield Path(library)


def probes(folder: Path) -> Iterator[Path]:
    """Libraries of a few lines by which the compiler finds out, in every process, which instructions it may use.

    To compile them takes longer than all else that a second process does. Kernels have a part in their names, as in
    ``c5omhm.main.so``. Each stands beside its source, which is the compiler's own.
    """
    from torch._inductor import cpu_vec_isa

    kinds = [own for own in vars(cpu_vec_isa).values() if isinstance(own, type)]
    texts = {text.strip() for kind in kinds for text in vars(kind).values() if isinstance(text, str) and "{" in text}
    for path in folder.glob("*/*.so"):
        source = path.with_suffix(".cpp")
        if path.suffixes == [".so"] and source.is_file() and source.read_text(encoding="utf-8").strip() in texts:
            yield path


def write_kernels(path: Path, kernels: Kernels) -> tuple[str, str]:
    """Write them beside ``path``; return the digest by which that file knows them, and why they are not signed."""
    described = {
        "modules": [
            {"key": own.key, "conditions": write_conditions(own.conditions), "bytes": len(own.data)}
            for own in kernels.modules
        ],
        "libraries": [{"path": name, "bytes": len(own)} for name, own in kernels.libraries.items()],
    }
    content = b"".join((*(own.data for own in kernels.modules), *kernels.libraries.values()))
    digest, reason = digest_of(described, content), ""
    try:
        signature = sign(digest.encode())
    except NoSecretError as error:
        signature, reason = UNSIGNED, str(error)
    write_container(beside(path), HEADING, described, signature + content)
    return digest, reason


def beside(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def read_kernels(path: Path, digest: str, *, trust: bool) -> Kernels:
    """The kernels beside ``path``.

    Raises:
        UnusableError: they are damaged, of another file, or nobody says that they do no harm.
    """
    described, content = read_container(beside(path), HEADING)
    signature, content = content[:LENGTH], content[LENGTH:]
    if digest_of(described, content) != digest:
        raise UnusableError("they are of another file")
    if not trust and not is_own(digest, signature):
        raise UnusableError(
            "they are code, and this user did not write them on this machine. Where you trust whoever wrote them, "
            "load_captures(..., trust_kernels=True) uses them"
        )
    with malformed_is_unusable():
        parts = iter_parts(content, [own["bytes"] for own in (*described["modules"], *described["libraries"])])
        modules = tuple(
            Stored(checked(own["key"], str), read_conditions(own["conditions"]), next(parts))
            for own in described["modules"]
        )
        return Kernels(modules, {checked(own["path"], str): next(parts) for own in described["libraries"]})


def digest_of(described: Any, content: bytes) -> str:
    text = compact(described).encode()
    return hashlib.sha256(len(text).to_bytes(8, "little") + text + content).hexdigest()


def is_own(digest: str, signature: bytes) -> bool:
    try:
        return is_signed(digest.encode(), signature)
    except NoSecretError:
        return False


def iter_parts(content: bytes, sizes: list[Any]) -> Iterator[bytes]:
    if any(checked(own, int) < 0 for own in sizes) or sum(sizes) != len(content):
        raise UnusableError("they are damaged")
    begin = 0
    for size in sizes:
        yield content[begin : begin + size]
        begin += size


def write_conditions(own: Conditions) -> Any:
    return VALUES.write((own.fixed, own.ragged, own.relations, baked_values(own), own.settings, own.device_type))


def baked_values(own: Conditions) -> dict[int, Any]:
    # With the type, which is that of the value.
    return {number: value for number, (_, value) in own.baked.items()}


def read_conditions(written: Any) -> Conditions:
    fixed, ragged, relations, baked, settings, device_type = VALUES.read(written)
    kinds = {number: (type(value), value) for number, value in baked.items()}
    return Conditions(fixed, ragged, relations, kinds, settings, device_type)


def restore_kernels(kernels: Kernels) -> None:
    """Put them where steps, and the compiler, look before they compile."""
    from torch._inductor.codecache import write_atomic
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    for name, data in kernels.libraries.items():
        target = Path(cache_dir(), name)
        if LIBRARY.fullmatch(name) and not target.exists():
            # As the compiler does: another process may look at any moment.
            write_atomic(str(target), data, make_dirs=True)
    KEPT.restore(kernels.modules)
