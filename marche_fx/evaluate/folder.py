"""The folder of an evaluation: a file for every finished batch, so that a kill costs one batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, CheckpointError
from ..plain import parse_json
from ..saving.files import (
    DamagedError,
    read_sealed_json,
    read_sealed_tensors,
    write_sealed_json,
    write_sealed_tensors,
)
from ..saving.folder import Differing, OwnFolder, told, whole
from .points import Point

SETTINGS_FILE = "settings.json"

MALFORMED = (DamagedError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
"""What reading a file raises that is not as it was written."""

OTHERS = "others"
"""Name, in a batch's file, of what is no tensor: the bytes of JSON."""


@dataclass(frozen=True)
class Batch:
    """What is kept of b images of a point.

    Attributes:
        features: ``[b, 64]`` float32, the judge's. predicted, labels: ``[b]``, what it sees and what was asked for.
        images: uint8 ``[n, 1, H, W]``, the few that are shown.
        seconds, head_seconds: wall time of the generation, and of the diffusion head in it.
        flops_ratio: of the transformer, over the original's in as many decoding steps.
        run: of the process that generated it; times of one run can be compared.
    """

    features: Tensor
    predicted: Tensor
    labels: Tensor
    images: Tensor
    seconds: float
    head_seconds: float
    flops_ratio: float
    run: str


@dataclass(frozen=True)
class Drift:
    """Teacher-forced drift of a point by decoding step, and its FLOPs over the original's in as many steps."""

    by_step: tuple[float, ...]
    flops_ratio: float

    @property
    def mean(self) -> float:
        return sum(self.by_step) / len(self.by_step)


class SettingsFolder(OwnFolder):
    """The folder of what was evaluated under settings.

    Raises:
        ArgumentError: it cannot be written, or holds results of others. CheckpointError: it does not say of which.
    """

    identity_file = SETTINGS_FILE
    advice = "Choose another --out"

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(path, identity)
        self.open()

    def of_another(self, differing: Differing) -> ArgumentError:
        return ArgumentError(
            f"{self.path} holds results of another evaluation: {told(differing)}. Choose another --out."
        )


class PolicyFolder(SettingsFolder):
    """The folder of a point in that of an evaluation: a policy of its name may have other arguments."""

    identity_file = "policy.json"


class Folder(SettingsFolder):
    """Results of points, under what `settings.identity` tells."""

    def claim(self, point: Point) -> None:
        """Take the folder of a point.

        Raises:
            ArgumentError: it holds results of a policy of this name with other arguments.
        """
        PolicyFolder(self.path / point.folder, {"policy": point.policy_values})

    def batch_file(self, point: Point, batch: int) -> Path:
        return self.path / point.folder / f"batch-{batch:04d}.safetensors"

    def has_batch(self, point: Point, batch: int) -> bool:
        """Whether a batch is there and whole; a warning names one that is damaged, to be generated again."""
        return whole(self.batch_file(point, batch), lambda _: self.read_batch(point, batch)) is not None

    def write_batch(self, point: Point, number: int, batch: Batch) -> None:
        values = dict(vars(batch))
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in values.items() if name not in tensors}
        tensors[OTHERS] = torch.tensor(list(json.dumps(others).encode()), dtype=torch.uint8)
        write_sealed_tensors(self.batch_file(point, number), tensors)

    def read_batch(self, point: Point, number: int) -> Batch:
        """What `write_batch` wrote.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.batch_file(point, number)
        try:
            values: dict[str, Any] = read_sealed_tensors(path)
            return Batch(**parse_json(bytes(values.pop(OTHERS).tolist()), float), **values)
        except MALFORMED as error:
            raise CheckpointError(f"{path} is damaged. Remove it; its images are then made again.") from error

    def read_batches(self, point: Point, count: int) -> list[Batch]:
        return [self.read_batch(point, number) for number in range(count)]

    def drift_file(self, point: Point) -> Path:
        return self.path / point.folder / "drift.json"

    def has_drift(self, point: Point) -> bool:
        """Whether its drift is there and whole; a warning names a file that is damaged, to be measured again."""
        return whole(self.drift_file(point), lambda _: self.read_drift(point)) is not None

    def write_drift(self, point: Point, drift: Drift) -> None:
        write_sealed_json(self.drift_file(point), asdict(drift))

    def read_drift(self, point: Point) -> Drift:
        """What `write_drift` wrote.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.drift_file(point)
        try:
            values = read_sealed_json(path)
            return Drift(tuple(map(float, values["by_step"])), float(values["flops_ratio"]))
        except MALFORMED as error:
            raise CheckpointError(f"{path} is damaged. Remove it; the drift is then measured again.") from error
