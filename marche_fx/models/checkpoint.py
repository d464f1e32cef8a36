"""Weights from and to files: safetensors, and the layout of the official MAR checkpoints."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..checks import few, tensor_in_words
from ..errors import CheckpointError, OutOfMemoryError, is_out_of_memory
from ..saving.files import replacing, tensors_hash
from .presets import SIZES

Model = TypeVar("Model", bound=nn.Module)

DIGEST = "marche_fx tensors_hash"
"""Key, in the metadata of a safetensors file, of a digest of its tensors; files of other programs lack it."""

LISTED = 20
"""How many entries of each kind an error lists by name."""


def load_checkpoint(model: Model, path: Path | str) -> Model:
    """Copy the weights in the file ``path`` into ``model``, in its dtype and on its device; return the model.

    ``path`` is a safetensors file, or what ``torch.save`` wrote: a state dict, or the official layout, a dictionary
    with ``model`` and ``model_ema``, of which the averaged weights are taken. Code in the file is never run.

    Raises:
        CheckpointError: the file cannot be read, holds anything but tensors, or entries are missing, unexpected or
            misshapen; these are listed. The model is left as it was.
    """
    found = read_checkpoint(path)
    problems = differences(model.state_dict(), found)
    if problems:
        size = size_of(found)
        advice = f" These are the shapes of MAR's size {size!r} (marche_fx.models.mar_{size})." if size else ""
        raise CheckpointError(
            f"{path} does not hold the weights of this {type(model).__name__}.{advice}\n" + "\n".join(problems)
        )
    model.load_state_dict(found)
    return model


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The tensors in the file ``path`` by name; see `load_checkpoint`."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}")
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    for part in ("model_ema", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(part), Mapping):
            content = content[part]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors")
    others = [f"{name} ({type(value).__name__})" for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path} holds entries that are not tensors: {few(others, LISTED)}")
    return dict(content)


def read_safetensors(path: Path) -> Any:
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as content:
            known = (content.metadata() or {}).get(DIGEST)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    if known is not None and known != tensors_hash(tensors):
        raise CheckpointError(f"{path} is damaged: its weights are not those that were written. Use another copy.")
    return tensors


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote to ``path``, with nothing in it executed."""
    # Checkpoints of the official training script carry its command line, a Namespace: plain attributes, no code.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return unpickled(path, path, mmap=zipfile.is_zipfile(path))


def unpickled(file: Path | BytesIO, path: Path, *, mmap: bool = False) -> Any:
    """What ``torch.save`` wrote to ``file``, called ``path``, on the CPU, with nothing in it executed.

    Raises:
        CheckpointError: it is something else. OutOfMemoryError: there is not the memory for it, which is no damage.
    """
    refuse_compressed(file, path)
    if isinstance(file, BytesIO):
        file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # The unpickler raises whatever the damaged bytes lead it to.
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"no memory is left to read {path}. Free some; the file is as it was") from error
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            # Without its cause, which recommends to load the file unsafely.
            raise CheckpointError(
                f"{path} refers to code ({refused[1]}), which could do anything when loaded, so it was not. "
                "Store the tensors alone, as safetensors or a plain state dict."
            ) from None
        raise CheckpointError(
            f"{path} is cut, damaged, or no checkpoint of torch.save ({type(error).__name__})"
        ) from error


def refuse_compressed(file: Path | BytesIO, path: Path) -> None:
    """Raise for an archive that may be a thousand times larger than it looks: ``torch.save`` compresses nothing."""
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            compressed = any(own.compress_type != zipfile.ZIP_STORED for own in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is cut, damaged, or no checkpoint of torch.save") from error
    if compressed:
        raise CheckpointError(f"{path} is a compressed archive, and no checkpoint of torch.save; unpack it first")


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """A line for each kind of difference in names, shapes and kind of number."""
    misshapen = [
        f"{name} is {tensor_in_words(found[name])}, expected {tensor_in_words(tensor)}"
        for name, tensor in expected.items()
        if name in found and kind_of(found[name]) != kind_of(tensor)
    ]
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "misshapen": misshapen,
    }
    return [f"{problem} ({len(entries)}): {few(entries, LISTED)}" for problem, entries in problems.items() if entries]


def kind_of(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


def size_of(weights: Mapping[str, Tensor]) -> str | None:
    """The name of MAR's size that has weights of these names and shapes."""
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    with torch.device("meta"):
        for size, build in SIZES.items():
            if shapes == {name: tensor.shape for name, tensor in build().state_dict().items()}:
                return size
    return None


def as_safetensors(tensors: dict[str, Tensor]) -> bytes:
    """A safetensors file that carries a digest of its tensors."""
    return save(tensors, {DIGEST: tensors_hash(tensors)})


def save_weights(model: nn.Module, path: Path) -> None:
    """Write ``model`` as safetensors: parameters as float16, buffers (statistics, counts) as they are.

    Raises:
        CheckpointError: ``path`` cannot be written.
    """
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    weights |= {name: parameter.detach().half().contiguous() for name, parameter in model.named_parameters()}
    try:
        with replacing(path) as partial:
            partial.write_bytes(as_safetensors(weights))
    except OSError as error:
        raise CheckpointError(f"the weights cannot be written to {path}: {error}") from error
