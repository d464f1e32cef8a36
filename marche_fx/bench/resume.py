"""What a benchmark found before it was cut off, so that it goes on behind that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from .machine import machine
from .rows import Bench
from .settings import Settings
from .variants import Variant


def cut_off(out: Path, variants: Sequence[Variant], settings: Settings, device: torch.device) -> Bench | None:
    """What the same benchmark wrote to the folder ``out`` before it was cut off.

    None where there is nothing, where it is of another machine or other options, where it cannot be read, and where it
    is complete: whoever asks for it again wants it measured again.
    """
    try:
        values = json.loads((out / "bench.json").read_text(encoding="utf-8"))
        found = Bench.from_dict(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    asked = {(batch, float(cfg)) for batch, cfg in product(settings.batch, settings.cfg)}
    is_same = found.settings == as_json(options(variants, settings)) and found.machine == as_json(machine(device))
    return found if is_same and set(found.done) < asked else None


def options(variants: Sequence[Variant], settings: Settings) -> dict[str, Any]:
    """All that a benchmark was asked for."""
    return settings.to_dict() | {"variants": [variant.label for variant in variants]}


def as_json(values: dict[str, Any]) -> Any:
    """The values as they are read from a file."""
    return json.loads(json.dumps(values))
