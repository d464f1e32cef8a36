"""Entries captured: the model beside its rewritten step, and what the report says of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.api.programs import Programs
from marche_fx.reporting.site_report import SiteReport
from marche_fx.reporting.step_report import StepReport, step_report
from marche_fx.runtime import program as runtime
from tests.oracle import Oracle
from tests.program import Program
from tests.reachable import Snapshot

from .entry import Arguments, Entry


def drawn_anew(model: nn.Module) -> nn.Module:
    """``model`` in float64 with weights large enough that a token tells on the others, gates included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.double().eval().requires_grad_(False).parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.copy_(0.3 * noise if weight.ndim > 1 else weight + 0.1 * noise)
    return model


class Captured:
    """An entry's model, its transformed twin, and its step rewritten, for arguments of one size."""

    def __init__(self, entry: Entry, samples: int, tokens: int) -> None:
        self.entry = entry
        self.samples = samples
        self.tokens = tokens
        torch.manual_seed(0)
        self.model = drawn_anew(entry.build())
        self.given = args, kwargs = self.arguments(torch.Generator().manual_seed(0))
        with torch.no_grad():
            # What a model keeps from its first call on is there before anything of ours runs.
            self.expected = self.exact(self.given)
        self.original = Snapshot(self.model)
        start = time.perf_counter()
        self.program = Program(self.model, "forward", args, kwargs)
        self.seconds = time.perf_counter() - start
        self.optimized = marche_fx.transform(self.model, refresh=marche_fx.FullRefresh(), compile=False, verify=False)
        # Capturing takes most of the time, so both run on one plan.
        planned = runtime.Program(self.program.plan, self.model, signals=(), compile=False)
        optimization_of(self.optimized).steps["forward"].captures.programs = Programs([planned])

    def arguments(self, generator: Generator) -> Arguments:
        return self.entry.arguments(self.samples, self.tokens, generator)

    def step(self, arguments: Arguments, active: Sequence[Tensor]) -> list[Any]:
        """With the tokens ``active [B, A]`` of each stream."""
        return self.program.step(tensors(arguments), *active)

    def exact(self, arguments: Arguments) -> list[Any]:
        args, kwargs = arguments
        return pytree.tree_leaves(self.model(*args, **kwargs))

    def oracle(self) -> Oracle:
        return self.program.oracle()

    def every(self) -> list[Tensor]:
        """All positions of each stream ``[B, N]``."""
        return [torch.arange(length).expand(self.program.plan.samples, -1) for length in self.lengths]

    def some(self, chosen: slice) -> list[Tensor]:
        return [positions[:, chosen] for positions in self.every()]

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.program.plan.axes.lengths

    @property
    def report(self) -> StepReport:
        return step_report(self.program.plan, self.program.split)


@cache
def captured(entry: Entry, samples: int, tokens: int) -> Captured:
    return Captured(entry, samples, tokens)


def tensors(arguments: Arguments) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]


def is_claimed(site: SiteReport) -> bool:
    return site.claimed


def apart(entry: Entry, site: SiteReport) -> bool:
    return any(fnmatch(site.path, pattern) for pattern in entry.apart)


def full_operators(report: StepReport) -> set[str]:
    return {own.operator for own in report.in_full}
