"""Where times were measured."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import torch

CPU_LIST = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, Any]:
    """The processor, the device and the versions that times depend on, as plain values."""
    from ..version import __version__

    return {
        "processor": processor_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "marche_fx": __version__,
        "system": platform.platform(),
    }


def processor_name() -> str:
    if CPU_LIST.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", CPU_LIST.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def described(machine: dict[str, Any]) -> str:
    """``AMD EPYC, 2 threads, torch 2.13.0, ...`` in a line."""
    device = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "python", "marche_fx"))
    return f"{device}{machine['processor']}, {threads}, {versions}"
