"""The folder of an evaluation: a file for every finished batch, so that a kill costs one batch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import ArgumentError, CheckpointError
from ..plain import parse_json
from ..saving.files import (
    MOST_TEXT,
    DamagedError,
    open_regular,
    read_sealed,
    read_sealed_json,
    write_json,
    write_sealed,
    write_sealed_json,
)
from ..saving.refused import make_folder
from .points import Point

SETTINGS_FILE = "settings.json"

MALFORMED = (DamagedError, SafetensorError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
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


class Folder:
    """Results in the folder ``path``, which belongs to one ``identity`` (`settings.identity`).

    Raises:
        ArgumentError: it cannot be written, or holds results of another identity.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = dict(identity)
        known = path / SETTINGS_FILE
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not known.exists():
                write_json(known, self.identity)
        except OSError as error:
            raise ArgumentError(f"the folder {path} cannot be written: {error}") from error
        refuse_others(read_json(known), self.identity, path)

    def claim(self, point: Point) -> None:
        """Take the folder of a point.

        Raises:
            ArgumentError: it holds results of a policy of this name with other arguments.
        """
        own = self.path / point.folder
        make_folder(own)
        known, policy = own / "policy.json", {"spec": point.spec, "policy": point.policy_values}
        if not known.exists():
            write_json(known, policy)
        # As JSON has it, without tuples.
        refuse_others(
            {"policy": read_json(known).get("policy")}, {"policy": json.loads(json.dumps(policy["policy"]))}, own
        )

    def batch_file(self, point: Point, batch: int) -> Path:
        return self.path / point.folder / f"batch-{batch:04d}.safetensors"

    def has_batch(self, point: Point, batch: int) -> bool:
        """Whether a batch is there and whole; a warning names one that is damaged, to be generated again."""
        return is_whole(self.batch_file(point, batch), lambda: self.read_batch(point, batch))

    def write_batch(self, point: Point, number: int, batch: Batch) -> None:
        values = dict(vars(batch))
        tensors = {name: value.cpu().contiguous() for name, value in values.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in values.items() if name not in tensors}
        tensors[OTHERS] = torch.tensor(list(json.dumps(others).encode()), dtype=torch.uint8)
        write_sealed(self.batch_file(point, number), save(tensors))

    def read_batch(self, point: Point, number: int) -> Batch:
        """What `write_batch` wrote.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.batch_file(point, number)
        try:
            values: dict[str, Any] = load(read_sealed(path))
            return Batch(**parse_json(bytes(values.pop(OTHERS).tolist()), float), **values)
        except MALFORMED as error:
            raise CheckpointError(f"{path} is damaged. Remove it; its images are then made again.") from error

    def read_batches(self, point: Point, count: int) -> list[Batch]:
        return [self.read_batch(point, number) for number in range(count)]

    def drift_file(self, point: Point) -> Path:
        return self.path / point.folder / "drift.json"

    def has_drift(self, point: Point) -> bool:
        """Whether its drift is there and whole; a warning names a file that is damaged, to be measured again."""
        return is_whole(self.drift_file(point), lambda: self.read_drift(point))

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


def is_whole(path: Path, read: Callable[[], object]) -> bool:
    """Whether there is a file and ``read`` can read it; where it cannot, warn."""
    if not path.exists():
        return False
    try:
        read()
    except CheckpointError:
        warnings.warn(f"{path} is damaged and not used; what it held is computed again", stacklevel=3)
        return False
    return True


def refuse_others(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if names:
        changes = ", ".join(f"{name} was {found.get(name)} and is {expected.get(name)}" for name in names)
        raise ArgumentError(f"{path} holds results of another evaluation: {changes}. Choose another --out.")


def read_json(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            return dict(parse_json(file.read(MOST_TEXT), float))
    except (OSError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Choose another --out: nothing else says what the results there are of."
        ) from error
