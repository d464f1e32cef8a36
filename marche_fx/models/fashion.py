"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747) from its four IDX files, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from .dataset import LabelledImages

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Fashion(LabelledImages):
    """Images ``[M, 1, 28, 28]`` uint8 and labels ``[M]`` int64 of `CLASSES`."""


def load_fashion(folder: Path, split: str = "train") -> Fashion:
    """The ``"train"`` (60,000) or ``"t10k"`` (10,000) images of ``folder``.

    Raises:
        DatasetError: a file is missing, cut, not of the expected kind, or the two files do not belong together.
    """
    images = read_idx(find_file(folder, f"{split}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(find_file(folder, f"{split}-labels-idx1-ubyte"), dimensions=1)
    if images.shape[1:] != (28, 28):
        raise DatasetError(f"{folder}: {split} images are {tuple(images.shape[1:])} pixels, expected (28, 28)")
    if len(images) != len(labels):
        raise DatasetError(f"{folder}: {len(images)} {split} images but {len(labels)} labels; are files swapped?")
    if len(labels) and int(labels.max()) >= len(CLASSES):
        raise DatasetError(f"{folder}: a {split} label is {int(labels.max())}, expected 0..{len(CLASSES) - 1}")
    return Fashion(images[:, None], labels.long())


def find_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DatasetError(
        f"{folder} holds neither {name} nor {name}.gz. Give the folder of Fashion-MNIST's four IDX files with --data "
        f"(Debian's package dataset-fashion-mnist puts them in {DEBIAN_FOLDER})."
    )


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes with so many dimensions."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, OSError) as error:
        raise DatasetError(f"{path} cannot be read whole: {error}") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:3] != b"\x00\x00\x08" or content[3] != dimensions:
        raise DatasetError(f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions; swapped files?")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    if len(content) - header != math.prod(shape):
        raise DatasetError(f"{path} is cut: {len(content) - header} bytes of values, {math.prod(shape)} expected")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy())
