"""All images in one file, as the evaluation suite of ADM (guided-diffusion) reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from torch import Tensor

from ..errors import SamplingError
from ..saving.files import replacing
from .folder import Folder
from .formats import Format

COLOURS = 3
"""What the suite reads; grey is repeated, opacity left out."""


def write_adm(folder: Folder, shares: int, count: int, format: Format, labels: Tensor | None) -> Path:
    """Write ``arr_0`` uint8 ``[count, H, W, 3]``, and labels as ``arr_1``, to ``samples_COUNTxHxWx3.npz``.

    One share after another: 50,000 images of 256x256 are 9.8 GB.

    Raises:
        SamplingError: images are not of one shape, or cannot be written. CheckpointError: a share is damaged.
    """
    height, width = coloured(read(folder, 0, format)).shape[1:3]
    shape = count, height, width, COLOURS
    path = folder.path / f"samples_{'x'.join(map(str, shape))}.npz"
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            for index in range(shares):
                images = coloured(read(folder, index, format))
                if images.shape[1:] != shape[1:]:
                    raise SamplingError(
                        f"images of share {index} are {list(images.shape[1:])} and those of the first "
                        f"{list(shape[1:])}: one array holds images of one shape"
                    )
                file.write(images.tobytes())
        if labels is not None:
            with archive.open("arr_1.npy", "w") as file:
                npy.write_array(file, labels[:count].numpy())
    return path


def read(folder: Folder, index: int, format: Format) -> np.ndarray:
    """``[b, H, W, c]``, the images of a share."""
    return format.decode(folder.images(folder.record(index)))


def coloured(images: np.ndarray) -> np.ndarray:
    """``[b, H, W, c]`` as ``[b, H, W, 3]``."""
    return np.repeat(images, COLOURS, -1) if images.shape[-1] == 1 else np.ascontiguousarray(images[..., :COLOURS])
