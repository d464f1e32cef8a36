"""What a capture of a model depends on, comparable between processes."""

from __future__ import annotations

import functools
import inspect
import platform
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..passes.capture.arguments import PLAIN
from ..passes.capture.digests import described, digest, instructions, kind_of
from ..passes.capture.structure import Place, attributes

Fingerprint = dict[str, str]
"""What there is, by name, to a digest of it."""


def software() -> Fingerprint:
    """Of Python, torch, and this package down to its source."""
    package = Path(__file__).parents[1]
    # `rglob` does not look behind a link, as `passes` is one in a checkout.
    own = sorted({*package.rglob("*.py"), *(package / "passes").rglob("*.py")})
    return {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "marche_fx": digest(*(path.read_bytes() for path in own)),
    }


def machine(model: nn.Module) -> Fingerprint:
    """Of the processor, for whose instructions `torch.compile` writes code, and of the GPUs that the model is on."""
    found = {"processor": platform.machine(), "its vector instructions": digest(*vector_instructions())}
    for device in sorted({str(own.device) for own in weights(model) if own.device.type == "cuda"}):
        name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        found[device] = f"{name} {capability}"
    return found


def vector_instructions() -> list[str]:
    """Sets of instructions that the processor has, and the one that PyTorch's own kernels use."""
    # Takes a while to load, and few processes save anything.
    from torch._inductor.cpu_vec_isa import x86_isa_checker

    found = list(x86_isa_checker())
    for name, value in torch.cpu.get_capabilities().items():
        # Vectors of ARM have a length; sizes of caches and names do not count.
        if value is True or name.endswith("max_length"):
            found.append(f"{name} {value}")
    return [torch.backends.cpu.get_cpu_capability(), *sorted(found)]


def weights(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def fingerprint(model: nn.Module, without: Collection[Place] = ()) -> Fingerprint:
    """Of a model: the source of its modules' classes, their attributes, and the kinds of its weights, not their values.

    Of an object that is no plain value, tensor, function, class or module, the type and, as far as `attributes` looks
    into it, what it holds.

    Args:
        without: attributes that do not count.
    """
    found = {}
    for path, module in model.named_modules():
        found[f"the class of {path or 'the model'}"] = source_of(type(module))
    for (path, name), values in attributes(model, kind_of).items():
        if (path, name) in without:
            continue
        if "_hook" in name:
            # Keys are numbers that this process gave them.
            values = [value for value in values if not isinstance(value, PLAIN)]
        found[".".join(filter(None, (path, name)))] = digest(*map(described, values))
    return found


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """The names of what differs."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def digest_of(whole: Fingerprint) -> str:
    """One digest of all that there is."""
    return digest(*(part for item in sorted(whole.items()) for part in item))


def source_of(kind: type) -> str:
    """A digest of the files that a class and its bases are written in; of its methods where there is no file."""
    found = []
    for own in kind.__mro__:
        if own.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        found.append(file_digest(own) or digest(*class_instructions(own)))
    return digest(kind.__qualname__, *found)


@functools.cache
def file_digest(kind: type) -> str | None:
    try:
        file = inspect.getsourcefile(kind)
    except (OSError, TypeError):
        return None
    return None if file is None or not Path(file).is_file() else digest(Path(file).read_bytes())


def class_instructions(kind: type) -> Iterator[bytes]:
    for value in vars(kind).values():
        code = getattr(value, "__code__", None)
        if code is not None:
            yield from instructions(code)
