"""The highest memory that was in use while something ran."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Bytes in use at most, over those before; None where that cannot be known."""

    bytes: int | None = None


@contextmanager
def measured_peak(device: torch.device) -> Iterator[Peak]:
    """Measure what runs inside: allocated memory on CUDA, resident memory of the process on Linux."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    before_kib = reset_high_water()
    yield peak
    if before_kib is not None:
        peak.bytes = max(status_kib("VmHWM") - before_kib, 0) * 1024


def reset_high_water() -> int | None:
    """Forget the high-water mark; return what is resident now in KiB, None where there is no such mark."""
    return_free_memory()
    try:
        CLEAR.write_text("5", encoding="ascii")
        return status_kib("VmRSS")
    except OSError:
        return None


def return_free_memory() -> None:
    """Give back what the allocator keeps, which would pass for memory in use before."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if STATUS.exists() else None
    if trim is not None:
        trim(0)


def status_kib(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"{STATUS} has no {name}")
    return int(found[1])
