"""The folder of an evaluation: a file for every finished batch, so that a kill costs one batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ArgumentError, CheckpointError
from ..saving.files import replacing, write_json
from .points import Point

SETTINGS_FILE = "settings.json"


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
        own.mkdir(exist_ok=True)
        known, policy = own / "policy.json", {"spec": point.spec, "policy": point.policy_values}
        if not known.exists():
            write_json(known, policy)
        # As JSON has it, without tuples.
        refuse_others({"policy": read_json(known)["policy"]}, {"policy": json.loads(json.dumps(policy["policy"]))}, own)

    def batch_file(self, point: Point, batch: int) -> Path:
        return self.path / point.folder / f"batch-{batch:04d}.safetensors"

    def has_batch(self, point: Point, batch: int) -> bool:
        return self.batch_file(point, batch).exists()

    def write_batch(self, point: Point, number: int, batch: Batch) -> None:
        values = dict(vars(batch))
        tensors = {name: value.cpu().contiguous() for name, value in values.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in values.items() if name not in tensors}
        with replacing(self.batch_file(point, number)) as partial:
            partial.write_bytes(save(tensors, {"batch": json.dumps(others)}))

    def read_batch(self, point: Point, number: int) -> Batch:
        """What `write_batch` wrote.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.batch_file(point, number)
        try:
            with safe_open(path, "pt") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
                return Batch(**tensors, **json.loads(content.metadata()["batch"]))
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: {error}. Remove it; its images are then made again.") from error

    def read_batches(self, point: Point, count: int) -> list[Batch]:
        return [self.read_batch(point, number) for number in range(count)]

    def drift_file(self, point: Point) -> Path:
        return self.path / point.folder / "drift.json"

    def has_drift(self, point: Point) -> bool:
        return self.drift_file(point).exists()

    def write_drift(self, point: Point, drift: Drift) -> None:
        write_json(self.drift_file(point), asdict(drift))

    def read_drift(self, point: Point) -> Drift:
        values = read_json(self.drift_file(point))
        return Drift(tuple(values["by_step"]), values["flops_ratio"])


def refuse_others(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if names:
        changes = ", ".join(f"{name} was {found.get(name)} and is {expected.get(name)}" for name in names)
        raise ArgumentError(f"{path} holds results of another evaluation: {changes}. Choose another --out.")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Remove it, or choose another --out.") from error
