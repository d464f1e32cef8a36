"""How time and memory of a step grow with tokens, batch, depth and active rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..api.decoding import decoding
from ..api.optimization import optimization_of
from ..api.transform import transform
from ..models import MAR
from ..models.mar import mask_by_order
from ..refresh import FullRefresh, StalenessRefresh
from ..speed.clock import Clock, clock_for, timings
from .fit import Fit, fit_terms
from .machine import machine
from .resident import measured_peak
from .turn import held_bytes
from .workload import DECODER

WIDTH = 128
HEADS = 4
CLASS_TOKENS = 4

PARTIAL, FULL = "partial", "full"

NOTHING_MORE = StalenessRefresh(0.0, warmup=0, tolerance=math.inf)
"""Computes the rows that are read."""


@dataclass(frozen=True)
class Shape:
    """A decoder's step: N ``tokens`` (a square) of ``batch`` samples, A ``active`` of each, in so many blocks."""

    tokens: int = 1024
    batch: int = 2
    depth: int = 4
    active: int = 32


VARIED: dict[str, tuple[int, ...]] = {
    "tokens": (64, 256, 1024, 4096),
    "batch": (1, 2, 4, 8),
    "depth": (1, 2, 4, 8),
    "active": (8, 16, 32, 64, 128, 256, 512),
}
"""What is varied, one after another, the others as in `Shape`."""


@dataclass(frozen=True)
class Point:
    """A measured step.

    Attributes:
        kind: ``partial`` or ``full``. rows: computed, of all samples.
        seconds: median. peak_bytes: over what was in use before the step. cache_bytes: of the session's caches.
    """

    shape: Shape
    kind: str
    rows: int
    seconds: float
    peak_bytes: int | None
    cache_bytes: int

    @property
    def terms(self) -> dict[str, float]:
        """What a step's time is made of: a fixed cost of each block, products of rows with weights and with tokens,
        and what is done for every token before and after the region."""
        shape = self.shape
        tokens = CLASS_TOKENS + shape.tokens
        return {
            "blocks": float(shape.depth),
            "rows x weights": float(self.rows) * shape.depth * 12 * WIDTH**2,
            "rows x tokens": float(self.rows) * shape.depth * 2 * tokens * WIDTH,
            "tokens": float(shape.batch) * tokens * WIDTH,
        }


@dataclass(frozen=True)
class Scaling:
    """Measured steps and the model fitted to the partial and to the full ones.

    Attributes:
        machine: see `machine.machine`. usual: the shape of which one thing is varied after another. fits: by kind.
    """

    machine: dict[str, Any]
    usual: Shape
    points: tuple[Point, ...]
    fits: dict[str, Fit]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "machine": self.machine,
            "width": WIDTH,
            "usual": asdict(self.usual),
            "points": [asdict(point) for point in self.points],
            "fits": {kind: asdict(fit) for kind, fit in self.fits.items()},
        }


def measure_scaling(
    usual: Shape | None = None,
    varied: Mapping[str, Sequence[int]] = VARIED,
    *,
    repeats: int = 5,
    device: torch.device | None = None,
) -> Scaling:
    """Time partial and full steps of decoders of small width and random weights, and fit the cost model.

    Args:
        usual: `Shape()` when omitted. varied: the values that each of its numbers takes, the others as usual.
    """
    start, place = usual or Shape(), device or torch.device("cpu")
    clock = clock_for(place)
    groups: dict[tuple[int, int, int], list[Shape]] = {}
    for shape in varied_shapes(start, varied):
        groups.setdefault((shape.tokens, shape.batch, shape.depth), []).append(shape)
    points = [point for group in groups.values() for point in measure_group(group, clock, place, repeats)]
    fits = {}
    for kind in dict.fromkeys(point.kind for point in points):
        own = [point for point in points if point.kind == kind]
        fits[kind] = fit_terms([point.terms for point in own], [point.seconds for point in own])
    return Scaling(machine(place), start, tuple(points), fits)


def varied_shapes(usual: Shape, varied: Mapping[str, Sequence[int]]) -> list[Shape]:
    """Every shape once."""
    return list(dict.fromkeys(replace(usual, **{name: value}) for name, values in varied.items() for value in values))


@torch.no_grad()
def measure_group(shapes: Sequence[Shape], clock: Clock, device: torch.device, repeats: int) -> list[Point]:
    """Partial steps of decoders that differ in active rows alone, and one full step, in one session."""
    shape = shapes[0]
    model = decoder(shape).to(device)
    # The refresh set is empty, so a step computes the rows that are read of its late result.
    optimized = transform(model, refresh=NOTHING_MORE, step=DECODER, compile=False, verify=False)
    x, mask, order = arguments(model, shape)
    policies = optimization_of(optimized).settings.policies
    points = []
    with decoding(optimized) as session:

        def step(active: int) -> None:
            rows = mask_by_order(active, order, *mask.shape).bool()
            optimized.forward_mae_decoder(x.clone(), mask.clone())[rows.nonzero(as_tuple=True)]

        def point(own: Shape, kind: str, active: int) -> Point:
            seconds = statistics.median(timings(lambda: step(active), clock, repeats))
            with measured_peak(device) as peak:
                step(active)
                clock.settle()
            record = session.records[-1]
            return Point(own, kind, record.rows, seconds, peak.bytes, held_bytes(session))

        policies[DECODER] = FullRefresh()
        points.append(point(shape, FULL, shape.tokens))
        policies[DECODER] = NOTHING_MORE
        points += [point(own, PARTIAL, own.active) for own in shapes if own.active <= own.tokens // 2]
    return points


def decoder(shape: Shape) -> MAR:
    """A MAR of random weights whose decoder has this shape."""
    side = math.isqrt(shape.tokens)
    torch.manual_seed(0)
    return MAR(
        img_size=side,
        vae_stride=1,
        patch_size=1,
        encoder_embed_dim=WIDTH,
        encoder_depth=1,
        encoder_num_heads=HEADS,
        decoder_embed_dim=WIDTH,
        decoder_depth=shape.depth,
        decoder_num_heads=HEADS,
        class_num=2,
        buffer_size=CLASS_TOKENS,
        diffloss_d=1,
        diffloss_w=8,
    ).eval()


def arguments(model: MAR, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Encoded tokens of which half are known, the mask of the others, and an order in which to read rows."""
    device = model.mask_token.device
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(shape.batch, shape.tokens, generator=generator).argsort(-1).to(device)
    mask = mask_by_order(shape.tokens // 2, order, shape.batch, shape.tokens)
    known = CLASS_TOKENS + shape.tokens - shape.tokens // 2
    x = torch.randn(shape.batch, known, WIDTH, generator=generator).to(device)
    return x, mask, order
