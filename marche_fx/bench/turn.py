"""One generation of a candidate, decoding step by decoding step, while others take theirs."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..api.decoding import decoding
from ..api.optimization import optimization_of
from ..passes.capture.arguments import opened
from ..refresh import RefreshPolicy
from ..runtime.open_sessions import current_session
from ..runtime.records import StepRecord
from ..runtime.session import Session
from ..speed.clock import Clock
from ..tuning.replay import Call, keep
from .candidates import Candidate
from .compiler import graphs_compiled
from .heads import TokenHead
from .workload import Workload, rows_of

Result = TypeVar("Result")


class Turn(Protocol):
    """A generation under way; entered before its first step and left after its last."""

    compilations: int

    def __enter__(self) -> Turn: ...

    def __exit__(self, *raised: Any) -> None: ...

    def step(self, number: int) -> dict[str, float]:
        """Run a decoding step; return the seconds of each part."""


class TransformerTurn:
    """The step methods of a candidate, in a session of its own where it has sessions.

    Sessions live in a context variable and variants share models, so each turn has a context of its own.

    Attributes:
        compilations: graphs that were compiled during its steps.
        read: the rows read of the last step's results.
        records: what its session computed. cache_bytes: what the session's caches took; None for the original.
    """

    def __init__(self, candidate: Candidate, clock: Clock, policies: Mapping[str, RefreshPolicy] | None = None) -> None:
        self.candidate = candidate
        self.clock = clock
        self.policies = candidate.policies if policies is None else policies
        self.context = contextvars.copy_context()
        self.session: Session | None = None
        self.stack = ExitStack()
        self.results: dict[int, list[Any]] = {}
        self.read: list[Tensor] = []
        self.records: list[StepRecord] = []
        self.cache_bytes: int | None = None
        self.compilations = 0

    def __enter__(self) -> TransformerTurn:
        self.run(self.open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.session is not None:
            self.records, self.cache_bytes = self.session.records, held_bytes(self.session)
        self.run(self.stack.close)

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call in the turn's own context, under its policies."""
        if self.policies:
            optimization_of(self.candidate.model).settings.policies.update(self.policies)
        return self.context.run(function, *args)

    def open(self) -> None:
        if not self.candidate.variant.is_original:
            self.stack.enter_context(decoding(self.candidate.model))
            self.session = current_session(optimization_of(self.candidate.model))

    def step(self, number: int) -> dict[str, float]:
        before = graphs_compiled()
        seconds = self.run(self.timed_step, number)
        self.compilations += graphs_compiled() - before
        return seconds

    def timed_step(self, number: int) -> dict[str, float]:
        workload = self.candidate.workload
        work = workload.steps[number]
        self.read = []
        spans = [
            (call.step, span) for place, call in enumerate(work.calls, work.first) for span in self.called(place, call)
        ]
        self.clock.settle()
        seconds = dict.fromkeys(workload.parts.values(), 0.0)
        for step, (begin, end) in spans:
            seconds[workload.parts[step]] += self.clock.seconds(begin, end)
        return seconds

    @torch.no_grad()
    def called(self, place: int, call: Call) -> list[tuple[Any, Any]]:
        """Make the generation's call of this number and read its results as the loop does; return what to time."""
        args, kwargs = call.given(self.results)
        method = getattr(self.candidate.model, call.step)
        begin = self.clock.mark()
        result = method(*args, **kwargs)
        calling = begin, self.clock.mark()
        leaves = pytree.tree_leaves(opened(result))
        # A late result is computed when its rows are read.
        begin = self.clock.mark()
        read = [rows_of(own, leaves[own.leaf]) for own in call.reads]
        reading = begin, self.clock.mark()
        self.read += read
        keep(self.results, place, leaves)
        return [calling, reading]


class HeadTurn:
    """A head's part of a generation; its time depends on the number of rows alone."""

    def __init__(self, head: TokenHead, workload: Workload, clock: Clock, seed: int) -> None:
        self.head = head
        self.workload = workload
        self.clock = clock
        self.generator = torch.Generator().manual_seed(seed)
        self.compilations = 0

    def __enter__(self) -> HeadTurn:
        return self

    def __exit__(self, *raised: Any) -> None:
        pass

    @torch.no_grad()
    def step(self, number: int) -> dict[str, float]:
        work, before = self.workload.steps[number], graphs_compiled()
        z = self.vectors(work.read)
        with self.head.at(number, len(self.workload.steps)) as draw:
            begin = self.clock.mark()
            draw(z, cfg=work.cfg)
            end = self.clock.mark()
        self.clock.settle()
        self.compilations += graphs_compiled() - before
        return {"head": self.clock.seconds(begin, end)}

    def vectors(self, rows: int) -> Tensor:
        """Random stand-ins for the decoder's vectors: ``[rows, D]``."""
        weight = self.head.model.mask_token
        return torch.randn(rows, weight.shape[-1], generator=self.generator).to(weight)


def held_bytes(session: Session) -> int:
    """What the caches of an open session take."""
    storages = [own.untyped_storage() for state in session.states for own in state.kept]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
