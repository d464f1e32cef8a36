"""How much memory a size needs, before any of it is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ArgumentError
from ..models import MAR
from ..models.mar import Block
from ..models.presets import SIZES
from ..reporting.tables import memory
from .settings import Settings
from .variants import Variant

BYTES = 4
"""Of a float32."""

AVAILABLE = Path("/proc/meminfo")

WIDE = 16
"""Vectors of the model's width that a block keeps of each token while it runs: norms, q, k, v, the MLP's four times
as wide rows twice."""


@dataclass(frozen=True)
class Need:
    """Bytes.

    Attributes:
        weights: of the model. caches: keys and values of every attention site, of each variant that has a session.
        activations: of one full step.
    """

    weights: int
    caches: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.caches + self.activations


def need_of(size: str, batch: int, cfg: float, sessions: int) -> Need:
    """What a size needs for ``batch`` images at once, with so many variants' sessions side by side."""
    with torch.device("meta"):
        model = SIZES[size]()
    samples = batch * (2 if cfg != 1 else 1)
    tokens = model.buffer_size + model.seq_len
    width = model.mask_token.shape[-1]
    row = samples * tokens * width * BYTES
    # Attention that a policy measures is a matrix of all tokens by all in a full step; half the sites may hold one.
    matrix = samples * heads_of(model) * tokens**2 * BYTES
    sites = len(model.encoder_blocks) + len(model.decoder_blocks)
    weights = sum(own.numel() for own in (*model.parameters(), *model.buffers())) * BYTES
    return Need(weights, sessions * 2 * sites * row, WIDE * row + 2 * matrix)


def heads_of(model: MAR) -> int:
    block = model.decoder_blocks[0]
    assert isinstance(block, Block)
    return block.attn.num_heads


def refuse_what_does_not_fit(
    size: str, variants: Sequence[Variant], settings: Settings, device: torch.device, available: int | None = None
) -> None:
    """Compare what a benchmark needs with the memory that is available.

    Raises:
        ArgumentError: it needs more, or there is no such size.
    """
    if size not in SIZES:
        raise ArgumentError(f"there is no size {size!r}; those that exist are {', '.join(SIZES)}")
    found = available_bytes(device) if available is None else available
    if found is None:
        return
    transformers: list[Variant] = []
    for variant in variants:
        if not variant.is_original and variant.transformer not in transformers:
            transformers.append(variant.transformer)
    sessions = len(transformers)
    for batch in settings.batch:
        for cfg in settings.cfg:
            need = need_of(size, batch, cfg, sessions)
            if need.total > found:
                raise ArgumentError(
                    f"size {size} with batch {batch} and guidance {cfg:g} needs {memory(need.total)} (weights "
                    f"{memory(need.weights)}, caches of {sessions} variants {memory(need.caches)}, a step "
                    f"{memory(need.activations)}), and {memory(found)} are available. Take a smaller batch or fewer "
                    "variants."
                )


def available_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a device; None where that cannot be known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not AVAILABLE.exists():
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", AVAILABLE.read_text(encoding="ascii"), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024
