"""From vendors' folders of pictures to one file: ``python -m marche_fx.models.emoji.pictures``.

Every picture is laid on white and scaled to 64x64. They are kept as lossless WebP sheets inside a safetensors file, at
a fifth of the room of their bytes.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.progress import track
from safetensors.torch import save
from torch import Tensor

from ...errors import DatasetError
from ...saving.files import replacing
from ...stopping import run_command
from .names import SIDE, Kind, is_a_repeat, is_held_out, read_catalogue, sequence_of, without_tones

SHEET = 128
"""Pictures on a sheet, below one another."""

SKIN_TONES = "Component"
"""The catalogue's group of the five bare skin tones, which are no pictures of anything."""


def read_picture(path: Path) -> np.ndarray:
    """``[64, 64, 3]`` uint8, on white."""
    try:
        with Image.open(path) as picture:
            coloured = picture.convert("RGBA")
    except (OSError, UnidentifiedImageError) as error:
        raise DatasetError(f"{path} cannot be read as a picture: {error}") from error
    white = Image.new("RGBA", coloured.size, "white")
    white.alpha_composite(coloured)
    return np.asarray(white.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def pictures_in(folder: Path) -> Iterator[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".webp")) if folder.is_dir() else []
    if not paths:
        raise DatasetError(f"{folder} holds no .png or .webp pictures")
    yield from paths


def build(catalogue: dict[tuple[int, ...], Kind], folders: Sequence[Path], out: Path) -> int:
    """Write the pictures of ``folders``, each a vendor's, to the file ``out``; return how many.

    Those that repeat another, byte for byte or as `is_a_repeat` tells, and those of emoji that the catalogue lacks are
    left out.
    """
    pictures: dict[bytes, tuple[Kind, bool, int]] = {}
    for vendor, folder in enumerate(folders):
        for path in track(list(pictures_in(folder)), f"{folder}"):
            sequence = sequence_of(path.stem)
            kind = catalogue.get(without_tones(sequence))
            if kind is not None and kind.group != SKIN_TONES and not is_a_repeat(sequence):
                pictures.setdefault(read_picture(path).tobytes(), (kind, is_held_out(sequence), vendor))
    if not pictures:
        raise DatasetError("none of the pictures shows an emoji of the catalogue")
    groups = sorted({kind.group for kind, _, _ in pictures.values()})
    subgroups = sorted({(kind.group, kind.subgroup) for kind, _, _ in pictures.values()})
    tensors = {
        "subgroup": torch.tensor([subgroups.index((kind.group, kind.subgroup)) for kind, _, _ in pictures.values()]),
        "held_out": torch.tensor([held_out for _, held_out, _ in pictures.values()]),
        "vendor": torch.tensor([vendor for _, _, vendor in pictures.values()], dtype=torch.uint8),
    }
    for number, sheet in enumerate(sheets(list(pictures))):
        tensors[f"sheet.{number:03}"] = sheet
    names = {"groups": json.dumps(groups), "subgroups": json.dumps(subgroups)}
    with replacing(out) as partial:
        partial.write_bytes(save(tensors, names))
    return len(pictures)


def sheets(pictures: Sequence[bytes]) -> Iterator[Tensor]:
    """Pictures below one another, `SHEET` on each sheet, as the bytes of lossless WebP files."""
    for first in range(0, len(pictures), SHEET):
        column = b"".join(pictures[first : first + SHEET])
        image = Image.frombytes("RGB", (SIDE, len(column) // (3 * SIDE)), column)
        buffer = io.BytesIO()
        image.save(buffer, "webp", lossless=True, quality=60)
        yield torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make one file of vendors' folders of emoji.")
    parser.add_argument("--catalogue", type=Path, required=True, help="emoji.json of an emoji-datasource package")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("folders", type=Path, nargs="+", help="a vendor's pictures, named by code points")
    given = parser.parse_args()
    count = build(read_catalogue(given.catalogue), given.folders, given.out)
    print(f"{count} pictures in {given.out}, {given.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    run_command(main)
