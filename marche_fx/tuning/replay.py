"""Record one exact generation and replay its steps under refresh policies: teacher-forced drift.

A policy that decodes freely soon sees other tokens than the exact model, so the two cannot be compared row by row. Here
both get the tokens of the exact generation, and the rows that the decoding loop read of each step are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..api.decoding import decoding
from ..api.optimization import optimization_of
from ..api.options import what_is_measured
from ..api.transform import transform
from ..errors import ArgumentError
from ..lazy.demand import ByToken, Source
from ..lazy.expressions import Result
from ..lazy.rows import RowNumbers
from ..lazy.tensor import LateTensor, values_of
from ..passes.capture.arguments import closed, named_leaves, opened
from ..passes.capture.digests import described, digest
from ..refresh import FullRefresh, RefreshPolicy
from ..runtime.advice import TOPICS
from ..runtime.method import Query
from ..runtime.open_sessions import current_session
from ..runtime.session import Session

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Earlier:
    """Stands in recorded arguments for a result of an earlier call of the same session."""

    call: int
    leaf: int


@dataclass
class Read:
    """Rows of a result that the loop read.

    Attributes:
        leaf: number of the result. rows: the tokens that it reads, bool ``[B, N]``; None for all of it.
        numbers: says which elements are of them; where it is None, ``rows`` are the result's first two dimensions.
        exact: what was read, ``[M, ...]`` or all of the result.
    """

    leaf: int
    rows: Tensor | None
    numbers: RowNumbers | None
    exact: Tensor

    def of(self, result: Any) -> Tensor:
        """The same rows of another result."""
        if isinstance(result, LateTensor) and (self.rows is None or self.numbers is not None):
            result = result_of(result).read(self.rows)
        return read_of(result, self.rows, self.numbers)

    @property
    def leading_rows(self) -> Tensor | None:
        """Rows read, bool ``[B, R]``, where samples and rows are the result's first two dimensions; None elsewhere."""
        if self.rows is None or self.numbers is None:
            return self.rows
        if self.numbers.dims != (0, 1):
            return None
        return self.rows[:, self.numbers.offset : self.numbers.offset + self.numbers.rows]


def read_of(result: Tensor | ByToken, rows: Tensor | None, numbers: RowNumbers | None) -> Tensor:
    """What is read of a result: all of it, rows, or elements."""
    if not isinstance(result, Tensor):
        assert rows is not None
        return result.of(rows.flatten().nonzero()[:, 0])
    if rows is None:
        return result
    if numbers is None:
        return result[rows]
    if numbers.dims is None:
        return result[numbers.elements(rows)]
    return result.movedim(numbers.dims, (0, 1))[rows[:, numbers.offset : numbers.offset + numbers.rows]]


@dataclass
class Call:
    """One call of a step method. A dataclass argument is kept opened, as `passes.arguments` does."""

    step: str
    arguments: Any
    """``(args, kwargs)``, with `Earlier` for what earlier calls returned."""
    reads: list[Read] = field(default_factory=list)

    @property
    def share_read(self) -> float | None:
        """Of the tokens, how many results are read of; None where none are, or results as a whole."""
        rows = [own.rows for own in self.reads]
        if not rows or any(own is None for own in rows):
            return None
        return torch.stack([own for own in rows if own is not None]).any(0).float().mean().item()

    def given(self, results: Mapping[int, Sequence[Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with the results of a replay's earlier calls."""
        merged = pytree.tree_map(
            lambda leaf: results[leaf.call][leaf.leaf] if isinstance(leaf, Earlier) else leaf, self.arguments
        )
        args, kwargs = closed(merged)
        return args, kwargs


@dataclass(frozen=True)
class Recording:
    """The steps of one or more exact generations of ``model``, session by session."""

    model: nn.Module
    step: str | Sequence[str] | None
    loop: str | Sequence[str] | None
    query: Query | None
    sessions: tuple[tuple[Call, ...], ...] = field(repr=False)
    candidates: dict[Any, nn.Module] = field(default_factory=dict, repr=False)
    """Transformed models whose captured steps serve every policy that measures the same."""

    def digest(self) -> str:
        """Another one for each generation: of every call its arguments, and the rows read with what they held."""
        return digest(*(part for calls in self.sessions for part in ("a session", *map(told, calls))))

    @property
    def share_read(self) -> float:
        """Of the tokens, how many a call's results are read of where rows are, mean over calls; 0 where none are."""
        shares = [share for calls in self.sessions for call in calls if (share := call.share_read) is not None]
        return sum(shares) / max(len(shares), 1)

    def transformed(self, refresh: RefreshPolicy | Mapping[str, RefreshPolicy]) -> nn.Module:
        """The model under a policy."""
        new = self.newly_transformed(refresh)
        policies = optimization_of(new).settings.policies
        known = self.candidates.setdefault(what_is_measured(policies), new)
        optimization_of(known).settings.policies.update(policies)
        return known

    def newly_transformed(self, refresh: RefreshPolicy | Mapping[str, RefreshPolicy]) -> nn.Module:
        found = transform(
            self.model,
            refresh=refresh,
            step=self.step,
            loop=self.loop,
            query=self.query,
            compile=False,
            verify=False,
        )
        for step in optimization_of(found).steps.values():
            # Candidates that gain nothing are what a search is there to find.
            step.method.warned.update(TOPICS)
        return found


def told(call: Call) -> str:
    """A call in words that are equal for equal calls."""
    arguments = (f"{name} {told_leaf(leaf)}" for name, leaf in named_leaves(call.arguments))
    reads = (f"reads {own.leaf} {described(own.rows)} {described(own.exact)}" for own in call.reads)
    return "\n".join([call.step, *arguments, *reads])


def told_leaf(leaf: Any) -> str:
    return repr(leaf) if isinstance(leaf, Earlier) else described(leaf)


@dataclass(frozen=True)
class Replay:
    """What a policy computed on recorded steps.

    Attributes:
        drift_by_step: norm of the difference of the rows read from the exact ones over the norm of these; of every
            decoding step, mean over sessions.
        flops_ratio, rows_ratio: of the step methods, over the original's.
        seconds: wall time of all step calls.
    """

    drift_by_step: tuple[float, ...]
    flops_ratio: float
    rows_ratio: float
    seconds: float

    @property
    def drift(self) -> float:
        """Mean over decoding steps."""
        return sum(self.drift_by_step) / len(self.drift_by_step)


def record(
    model: Model,
    run: Callable[[Model], Any],
    *,
    step: str | Sequence[str] | None = None,
    loop: str | Sequence[str] | None = None,
    query: Query | None = None,
    candidates: dict[Any, nn.Module] | None = None,
) -> Recording:
    """Run a generation exactly and take down every call of a step method, and the rows read of its results.

    Args:
        run: generates with what it is given, a model like ``model``; with a loop of its own, inside
            ``with marche_fx.decoding(given):``.
        step, loop, query: as in `transform`.
        candidates: of another recording of the same model, to share its captured steps.

    Raises:
        ArgumentError: ``run`` called no step method inside of a session.
    """
    recording = Recording(model, step, loop, query, (), {} if candidates is None else candidates)
    exact = recording.transformed(FullRefresh())
    with torch.no_grad(), Recorder(exact, query) as recorder:
        # A transformed model is of the class of its original.
        run(cast(Model, exact))
    if not recorder.sessions:
        raise ArgumentError(
            "run called no step of the model inside of a session; decode inside `with marche_fx.decoding(model):` or "
            "name the method that does as loop"
        )
    return replace(recording, sessions=tuple(tuple(calls) for calls in recorder.sessions))


class Recorder:
    """Takes the place of the step methods of a transformed model, and of the results that they give, while entered."""

    def __init__(self, exact: nn.Module, query: Query | None) -> None:
        self.exact = exact
        self.optimization = optimization_of(exact)
        self.query = query
        self.sessions: list[list[Call]] = []
        self.session: Session | None = None
        self.results: dict[int, list[Any]] = {}
        """Of the last calls, by number."""
        self.last = list(self.optimization.steps)[-1]

    def __enter__(self) -> Recorder:
        steps = self.optimization.steps
        self.exact.__dict__.update({name: self.recorded(name, method) for name, method in steps.items()})
        return self

    def __exit__(self, *_: object) -> None:
        self.exact.__dict__.update(self.optimization.steps)

    def recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            session = current_session(self.optimization)
            if session is None:
                return method(*args, **kwargs)
            if session is not self.session:
                self.session, self.results = session, {}
                self.sessions.append([])
            own = Call(name, pytree.tree_map(self.kept, opened((args, kwargs))))
            self.sessions[-1].append(own)
            result = method(*args, **kwargs)
            leaves = pytree.tree_leaves(opened(result))
            keep(self.results, len(self.sessions[-1]) - 1, leaves)
            if name == self.last:
                mask = None if self.query is None else self.query(*args, **kwargs)
                for number, leaf in enumerate(leaves):
                    note_reads(own, number, leaf, mask)
            return result

        return call

    def kept(self, leaf: Any) -> Any:
        """An argument as it is now: by reference if an earlier call returned it, otherwise copied."""
        for call, leaves in self.results.items():
            for number, own in enumerate(leaves):
                if own is leaf and isinstance(leaf, Tensor):
                    return Earlier(call, number)
        return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


REACH = 8
"""So many calls back a result may be passed on by reference; what is passed later is recorded by value."""


def keep(results: dict[int, list[Any]], call: int, leaves: list[Any]) -> None:
    """Add what a call returned, and forget what no later call can refer to."""
    results[call] = leaves
    results.pop(call - REACH, None)


@dataclass(frozen=True, eq=False)
class NotedReads:
    """One call of a step that is recorded, which takes down what is read of a result."""

    source: Source
    call: Call
    number: int
    numbers: RowNumbers | None

    @property
    def views(self) -> list[ref[Any]]:
        return self.source.views

    def has(self, tokens: Tensor | None) -> bool:
        return self.source.has(tokens)

    def to_note_later(self) -> Callable[[], None]:
        return self.source.to_note_later()

    def read(self, tokens: Tensor | None, *, is_read: bool = True) -> Sequence[Any]:
        leaves = self.source.read(tokens, is_read=is_read)
        exact = read_of(leaves[self.number], tokens, self.numbers).clone()
        self.call.reads.append(Read(self.number, tokens, self.numbers, exact))
        return leaves


def result_of(leaf: LateTensor) -> Result:
    """What a late tensor is that nobody has written into."""
    found = leaf.late.memory.expression
    assert isinstance(found, Result)
    return found


def note_reads(call: Call, number: int, leaf: Any, mask: Tensor | None) -> None:
    """Take down what is read of one result: now where a query says it, or it is a tensor; otherwise when it happens."""
    leaf = leaf if mask is None else values_of(leaf)
    if isinstance(leaf, LateTensor):
        result = result_of(leaf)
        result.source = NotedReads(result.source, call, number, result.numbers)
        # So that what a loop makes of all rows says which it wants.
        leaf.late.memory.records = True
    elif isinstance(leaf, Tensor) and leaf.is_floating_point():
        fits = mask is not None and leaf.ndim > 2 and leaf.shape[:2] == mask.shape
        rows = mask if fits else None
        call.reads.append(Read(number, rows, None, read_of(leaf, rows, None).clone()))


def replay(recording: Recording, policy: RefreshPolicy | Mapping[str, RefreshPolicy]) -> Replay:
    """The recorded steps with the rows that ``policy`` chooses."""
    candidate = recording.transformed(policy)
    drifts: list[list[float]] = []
    records: list[Any] = []
    seconds = 0.0
    with torch.no_grad():
        for calls in recording.sessions:
            with decoding(candidate):
                began = time.perf_counter()
                drifts.append(list(drift_of(calls, candidate)))
                seconds += time.perf_counter() - began
            session = optimization_of(candidate).last_session
            assert session is not None
            records += session.records
    return Replay(
        by_step(drifts),
        sum(own.flops for own in records) / sum(own.original_flops for own in records),
        sum(own.rows for own in records) / sum(own.original_rows for own in records),
        seconds,
    )


def replay_original(recording: Recording) -> float:
    """Wall time of the original on the recorded steps, in seconds."""
    began = time.perf_counter()
    with torch.no_grad():
        for calls in recording.sessions:
            for _ in drift_of(calls, recording.model):
                pass
    return time.perf_counter() - began


def drift_of(calls: Sequence[Call], model: nn.Module) -> Iterator[float]:
    """Run recorded calls on ``model`` and compare what was read of each."""
    results: dict[int, list[Any]] = {}
    for number, call in enumerate(calls):
        args, kwargs = call.given(results)
        leaves = pytree.tree_leaves(opened(getattr(model, call.step)(*args, **kwargs)))
        keep(results, number, leaves)
        if call.reads:
            # Rows that the loop read one after another belong to one step.
            wrong = whole = 0.0
            for own in call.reads:
                found = own.of(leaves[own.leaf]).double()
                wrong += float((found - own.exact.double()).square().sum())
                whole += float(own.exact.double().square().sum())
            yield (wrong / max(whole, 1e-300)) ** 0.5


def by_step(drifts: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Mean over the sessions that have the step."""
    longest = max(map(len, drifts))
    columns = [[own[step] for own in drifts if step < len(own)] for step in range(longest)]
    return tuple(sum(column) / len(column) for column in columns)
