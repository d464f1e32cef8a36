"""Images of a share as files, and from them."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors import numpy as safetensors

from ..errors import ArgumentError

IMAGES, LABELS, NUMBERS = "images", "labels", "numbers"
"""Names of arrays in a file of a whole share."""

Arrays = Mapping[str, np.ndarray]
"""By these names."""


@dataclass(frozen=True)
class Format:
    """How the images of a share become files.

    Attributes:
        encode: arrays to the content of files by name; the names are those of ``names``.
        decode: the contents, in the order of the numbers, to images. names: of the files of these numbers of a share.
        keeps_any: whether what is no picture can be kept.
    """

    encode: Callable[[Arrays], list[bytes]]
    decode: Callable[[Sequence[bytes]], np.ndarray]
    names: Callable[[int, range], list[str]]
    keeps_any: bool = True


def encode_png(arrays: Arrays) -> list[bytes]:
    return [png_of(image) for image in arrays[IMAGES]]


def png_of(image: np.ndarray) -> bytes:
    """``[H, W, c]`` uint8 as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG")
    return file.getvalue()


def decode_png(contents: Sequence[bytes]) -> np.ndarray:
    from PIL import Image

    found = np.stack([np.asarray(Image.open(io.BytesIO(own))) for own in contents])
    return found[..., None] if found.ndim == 3 else found


def encode_npz(arrays: Arrays) -> list[bytes]:
    file = io.BytesIO()
    # No dates are written, so equal arrays are equal bytes.
    np.savez(file, allow_pickle=False, **arrays)
    return [file.getvalue()]


def decode_npz(contents: Sequence[bytes]) -> np.ndarray:
    with np.load(io.BytesIO(contents[0]), allow_pickle=False) as arrays:
        found: np.ndarray = arrays[IMAGES]
    return found


def encode_safetensors(arrays: Arrays) -> list[bytes]:
    return [safetensors.save(dict(arrays))]


def decode_safetensors(contents: Sequence[bytes]) -> np.ndarray:
    return safetensors.load(contents[0])[IMAGES]


def name_of_each(index: int, numbers: range) -> list[str]:
    return [f"{number:06d}.png" for number in numbers]


FORMATS = {
    "png": Format(encode_png, decode_png, name_of_each, keeps_any=False),
    "npz": Format(encode_npz, decode_npz, lambda index, numbers: [f"{index:06d}.npz"]),
    "safetensors": Format(encode_safetensors, decode_safetensors, lambda index, numbers: [f"{index:06d}.safetensors"]),
}
"""By name."""


def format_of(name: object, *, raw: bool) -> Format:
    """The format of this name.

    Raises:
        ArgumentError: there is none, it keeps pictures alone, or what it needs is not installed.
    """
    if not isinstance(name, str) or name not in FORMATS:
        raise ArgumentError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    found = FORMATS[name]
    if raw and not found.keeps_any:
        raise ArgumentError(f"{name} keeps pictures alone: take npz or safetensors with raw=True")
    if name == "png" and importlib.util.find_spec("PIL") is None:
        raise ArgumentError("PNG needs pillow: pip install 'marche-fx[cli]', or take npz or safetensors")
    return found
