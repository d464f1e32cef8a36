"""The file of pictures that `marche_fx.models.emoji.pictures` makes, read into memory."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import DatasetError
from ..dataset import LabelledImages
from .names import SIDE, Kind


@dataclass(frozen=True)
class Emoji:
    """Pictures ``[M, 3, 64, 64]`` uint8, labelled by subgroup, and what is known of them.

    Attributes:
        training, held_out: pictures of different emoji.
        groups: names of Unicode's groups. subgroups: names of its finer ones.
        group_of: ``[len(subgroups)]``, the group of each.
    """

    training: LabelledImages
    held_out: LabelledImages
    groups: list[str]
    subgroups: list[str]
    group_of: Tensor

    @property
    def kinds(self) -> list[Kind]:
        """Group and subgroup of each label."""
        groups = (self.groups[group] for group in self.group_of.tolist())
        return [Kind(group, subgroup) for group, subgroup in zip(groups, self.subgroups, strict=True)]

    def in_groups(self, images: LabelledImages) -> LabelledImages:
        """The same images labelled by group."""
        return LabelledImages(images.images, self.group_of[images.labels])


def load_emoji(path: Path) -> Emoji:
    """Read the file ``path``.

    Raises:
        DatasetError: it is missing, damaged, or not such a file.
    """
    try:
        with safe_open(path, "pt") as content:
            names = content.metadata()
            groups, subgroups = json.loads(names["groups"]), json.loads(names["subgroups"])
            labels, held_out = content.get_tensor("subgroup"), content.get_tensor("held_out")
            images = [read_sheet(content.get_tensor(name)) for name in sorted(content.keys()) if "sheet" in name]
    except (SafetensorError, UnidentifiedImageError, OSError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} is missing, damaged or not what python -m marche_fx.models.emoji.pictures writes: {error}"
        ) from error
    pictures = torch.cat(images)
    if len(pictures) != len(labels):
        raise DatasetError(f"{path} holds {len(pictures)} pictures but {len(labels)} labels")
    return Emoji(
        LabelledImages(pictures[~held_out], labels[~held_out]),
        LabelledImages(pictures[held_out], labels[held_out]),
        groups,
        [subgroup for _, subgroup in subgroups],
        torch.tensor([groups.index(group) for group, _ in subgroups]),
    )


def read_sheet(encoded: Tensor) -> Tensor:
    """The pictures ``[M, 3, 64, 64]`` of a sheet of bytes ``[L]``."""
    column = np.asarray(Image.open(io.BytesIO(encoded.numpy().tobytes())).convert("RGB"))
    return torch.from_numpy(column.reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2).copy())
