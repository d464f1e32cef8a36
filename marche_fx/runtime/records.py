"""What a call of a step computed, and why: what reports are made of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from ..errors import ArgumentError
from .method import StepMethod
from .out_of_memory import Free, freeing
from .program import Program

REASONS = ("cached", "changed", "queried", "refreshed")


@dataclass(frozen=True)
class Choice:
    """What was chosen in a step, and why, kept as it came: most steps nobody asks about.

    Attributes:
        active: int64 ``[B, A]``, positions of the tokens that were computed.
        changed, queried: bool ``[B, N]``, those of which these are the reasons.
    """

    active: Tensor
    changed: Tensor
    queried: Tensor

    @property
    def reasons(self) -> Tensor:
        """Why each token is computed: uint8 ``[B, N]``, an index into `REASONS`."""
        chosen = torch.zeros(self.changed.shape, dtype=torch.uint8, device=self.changed.device)
        chosen = chosen.scatter(1, self.active, 3)
        queried = torch.where((chosen > 0) & self.queried, 2, chosen)
        return torch.where((chosen > 0) & self.changed, 1, queried).to(torch.uint8)


@dataclass(frozen=True)
class StepRecord:
    """What one call of a step computed.

    Attributes:
        counts: tokens computed in each sample, of each stream; read: those of them whose results are. visible: tokens
            that the original computes, of all streams.
        choice: which tokens were computed, and why.
        drift: how far cached rows were from exact ones, where a `Monitor` checked.
        again: whether the call had computed some tokens before: more of its rows were read, or a `Monitor` found cached
            ones off. The original computes a call once, so that only the first record of one has what it computes.
        stream: number of the condition that it was called under, among those of its session.
        computed: bool ``[B, N]``, tokens whose results were computed, or what a wide one is computed of.
        results: of so many tokens of each sample rows of a wide result were computed, while it was read; None where
            the step has none.
        call: that it is a part of. score: ``[B, N]`` float32, the policy's priority, by which the refreshed ones were
            chosen; None where none was needed. spared: bool ``[B, N]``, tokens that were read and left as they were,
            since the policy bounds those; None where it does not.
    """

    name: str
    program: Program = field(repr=False)
    counts: tuple[int, ...]
    read: tuple[int, ...]
    visible: int
    choice: Choice = field(repr=False)
    drift: float | None = None
    again: bool = False
    stream: int = 0
    computed: Tensor | None = field(default=None, repr=False)
    results: int | None = None
    call: CallRecord | None = field(default=None, repr=False)
    score: Tensor | None = field(default=None, repr=False)
    spared: Tensor | None = field(default=None, repr=False)

    @property
    def reasons(self) -> Tensor:
        """uint8 ``[B, N]``, an index into `REASONS`: why each token was computed, or that it was not."""
        return self.choice.reasons

    @property
    def active(self) -> int:
        """Tokens A computed in each of the samples B."""
        return sum(self.counts)

    @property
    def rows(self) -> int:
        return self.active * self.program.samples

    @property
    def original_rows(self) -> int:
        return 0 if self.again else self.visible * self.program.samples

    @property
    def flops(self) -> float:
        return self.program.cost.incremental(self.counts, self.read, self.results)

    @property
    def original_flops(self) -> float:
        return 0.0 if self.again else self.flops_of_call

    @property
    def flops_of_call(self) -> float:
        """What the original computes in a call."""
        return self.program.cost.original(self.visible)


@dataclass(frozen=True)
class ReadRecord:
    """One read of a result.

    Attributes:
        line: of the loop that reads, as ``decode.py:41``.
        rows: how many rows of each sample it names, ``[B]``, not yet on the host; None where it reads the whole.
        oldest: steps since the oldest of the rows that it gets was computed, likewise; without those of ``spared``.
        spared: how many rows of all samples it gets that the policy had no room for, and the same of these.
        by_query: whether the user's query names the rows; the line is that of the call then.
        is_check: whether nobody but a check of what the loop draws from reads it.
        runs_again: whether the step ran for it once more.
    """

    line: str
    rows: Tensor | None
    oldest: Tensor
    spared: tuple[Tensor, Tensor] | None = None
    by_query: bool = False
    is_check: bool = False
    runs_again: bool = False


@dataclass
class CallRecord:
    """One call of a step method.

    Attributes:
        method: that was called, of the model or of a child that its loop calls; two of these may have one name.
        stream: number of the condition that it was called under. step: number of the decoding step in that stream.
        changed: for each watched value which tokens moved by it, bool ``[B, N]`` or ``[B]`` where a whole sample
            reads it; empty where everything was new.
        moved: where every token ran, the arguments that differ from those of the call before.
        active: tokens computed in each sample at once, 0 for a call of which nobody read anything. computed: the same
            of all times that it ran. wanted: of them, those that the policy asked for. seconds: it took to call
            it and to compute them, where it was not the first time.
        kept: tokens of a sample whose rows calls of another length left, in the first call of a length.
        runs: how many times it ran.
    """

    method: StepMethod = field(repr=False)
    program: Program = field(repr=False)
    stream: int
    step: int
    changed: list[Tensor] = field(default_factory=list, repr=False)
    moved: set[fx.Node] = field(default_factory=set, repr=False)
    reads: list[ReadRecord] = field(default_factory=list)
    active: int = 0
    computed: int = 0
    visible: int = 0
    wanted: int = 0
    seconds: float = 0.0
    kept: int = 0
    runs: int = 0

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def is_full(self) -> bool:
        return 0 < self.visible <= self.active

    @property
    def is_forced(self) -> bool:
        """Whether all tokens ran although the policy had not asked for it."""
        return self.is_full and self.wanted < self.visible


class SessionLog:
    """What was called, read and computed in a session, by one thread at a time."""

    def __init__(self, free: Free | None = None) -> None:
        self.free = free
        """Frees the session's caches."""
        self.records: list[StepRecord] = []
        self.calls: list[CallRecord] = []
        self.wide: set[tuple[int, Program]] = set()
        """Streams, and programs of them, that came to keep all rows of a wide result."""
        self.lock = threading.RLock()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Compute in the session.

        Raises:
            ArgumentError: another thread does. OutOfMemoryError: the device has no memory left.
        """
        if not self.lock.acquire(blocking=False):
            raise ArgumentError(
                "a session is used by two threads at once, which would mix their caches. Open one for each: "
                "`with marche_fx.decoding(model):` inside of the thread"
            )
        try:
            with freeing(self.free, lambda: [(str(own.method), own.program) for own in self.calls]):
                yield
        finally:
            self.lock.release()
