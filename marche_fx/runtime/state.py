"""What a session keeps of one step: its caches, and the inputs that each token was last computed with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor

from ..refresh.history import Refresh
from ..refresh.signals import Signal
from .choose import ActiveStreams, choose_streams
from .exactness import Exactness
from .expected import ExpectedReads
from .graphs.buffers import Buffers
from .graphs.rows import ActiveRows
from .graphs.step import StepGraphs
from .last_inputs import LastInputs
from .lengths import Kept
from .measure import compares_rows
from .program import Program
from .prologue import Prologue, Values
from .wide import WideResult


class Call(Protocol):
    """A call whose results may be the caches."""

    def note_age(self) -> None:
        """Take down how old the results are."""

    def let_go(self) -> None:
        """Copy of the results what is still wanted."""


class StepState:
    """One step of one session: its caches, and the inputs that each token was last computed with."""

    caches: list[Tensor]
    wide: Tensor | None
    """All rows of the wide result, from when some are read that were not computed in the same call."""
    computed_at: Tensor | None
    """``[B, N]``, number of the call in which each token's results were computed; None before any was."""
    exactness: Exactness | None
    """Which cached rows nothing that moved can reach; None where that is not known of any."""
    inputs: LastInputs
    samples: Tensor | None
    """``[B, 1]``, numbers of the samples. numbers: by A those of all active tokens, ``[B, A]``."""
    numbers: dict[int, Tensor]
    met: list[Any]
    """Of `unwatched` the values in the last step."""
    unread: Tensor | None
    """bool ``[B, N]``, tokens whose results were left out when they were last active; None before any was."""
    expected: ExpectedReads
    """What is likely to be read after the first read of a call."""

    def __init__(self, program: Program, graphs: StepGraphs | None = None) -> None:
        self.program = program
        self.graphs = graphs
        """Of the step, where it runs as graphs."""
        self.buffers: Buffers | None = None
        """What these are recorded on, the caches among it; a later session takes them over."""
        program.states.add(self)
        self.reads_all = False
        """Whether results were read as a whole: from then on those of every active token are computed."""
        self.read = torch.zeros(0)
        """``[B, R]``, positions of the tokens whose results the last step computed."""
        self.asked = torch.zeros(0)
        """``[B, Q]``, positions of those tokens that it was asked for, all of them, and some others."""
        self.calls = 0
        self.writer: ref[Call] | None = None
        """The call that wrote the caches last."""
        self.release()

    @property
    def is_new(self) -> bool:
        return not self.caches

    @property
    def kept(self) -> list[Tensor]:
        """All that is kept of rows from call to call."""
        return self.caches if self.wide is None else [*self.caches, self.wide]

    def next_call(self) -> int:
        """The number of a call of the step; from now on the caches are no longer those of an earlier one."""
        self.calls += 1
        if self.exactness is not None:
            self.exactness.is_known = False
        return self.calls

    def begin(self, given: Values) -> Values:
        """Run the prologue, everything before the region, on all tokens, as far as what it reads changed."""
        fixed = {**self.program.current_weights(), **self.program.plan.dense.constants}
        computed = self.prologue.run({**fixed, **given})
        return {**fixed, **self.program.step_values(given, computed)}

    def changed(self, values: Values, tolerance: float) -> Tensor:
        """Tokens whose inputs moved since they were last computed: bool ``[B, N]``."""
        return self.inputs.changed(self.watched(values), tolerance, self.program.allowed)

    def input_drift(self, values: Values) -> Tensor:
        """How far each token's inputs moved since it was last computed, over their norm: ``[B, N]`` float32."""
        return self.inputs.drift(self.watched(values))

    def watched(self, values: Values) -> list[Tensor]:
        """What is compared between steps; of an argument that the step reads as a number, that number."""
        device, found = self.program.device(values), [values[own.node] for own in self.program.watched]
        return [own if isinstance(own, Tensor) else torch.tensor(own, device=device) for own in found]

    def unwatched(self, values: Values) -> list[Any]:
        """What only a call of another length may find changed."""
        return [values[own.node] for own in self.program.unwatched]

    def take_rows(self, source: StepState, kept: Kept, values: Values) -> None:
        """Go on where calls of another length stopped, ``source``: tokens that are kept are the same ones.

        New tokens were never computed, and neither are those for which something that no call of one length changes is
        another for this one, as a table of positions that depends on how many there are.

        Args:
            values: of the first call of this length.
        """
        own, program = source.program, self.program
        for spec, cache in zip(own.split.caches, source.caches, strict=True):
            rows = kept.rows(cache, spec.layout.token_dim, own.plan.region.rows[spec.value].streams)
            self.caches.append(spec.in_order(rows))
        self.calls, self.reads_all = source.calls, source.reads_all
        self.computed_at = None if source.computed_at is None else kept.rows(source.computed_at)
        self.unread = None if source.unread is None else kept.rows(source.unread, fill=False)
        twins, places = program.likeness(own).twins, {place.node: place for place in program.unwatched}
        order = [value.node for value in program.watched]
        self.inputs = source.inputs.at_length(
            kept, program.watched, sorted(range(len(order)), key=lambda n: order.index(twins[own.watched[n].node]))
        )
        if source.exactness is not None and program.sight is not None:
            self.exactness = source.exactness.at_length(kept, program.sight, values)
        self.met = self.unwatched(values)
        for place, before in zip(own.unwatched, source.met, strict=True):
            twin = places[twins[place.node]]
            self.inputs.forget(kept.differing((place, twin), before, values[twin.node]))

    def is_cache(self, leaf: Any) -> bool:
        """Whether a result stands in the memory of a cache."""
        owned = {cache.untyped_storage().data_ptr() for cache in self.kept}
        return isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in owned

    def begin_writing(self, call: Call) -> None:
        """A call is about to write the caches: an earlier one whose results somebody still holds keeps them."""
        before = None if self.writer is None else self.writer()
        if before is not None and before is not call:
            before.let_go()
        self.writer = ref(call)

    def compute(self, values: Values, active: ActiveStreams, queried: Tensor) -> dict[Signal, Tensor]:
        """Recompute the active tokens; return what was measured, ``[B, N]`` each, NaN where a token was not.

        ``queried`` is bool ``[B, N]``.
        """
        program, positions = self.program, active.positions
        inputs = [values[node] for node in program.split.incremental.inputs]
        first = self.is_new
        self.take_caches(program.device(values))
        samples = self.samples
        if samples is None:
            samples = self.samples = torch.arange(program.samples, device=positions.device)[:, None]
        ragged = [own.positions for own in active.streams]
        if program.tells_queried or active.skips_unread:
            among_active = parts(queried.gather(1, positions), active.counts)
            rows = [own.float().topk(stream.queried, 1).indices for own, stream in zip(among_active, active.streams)]
            asked = [own.gather(1, first) for own, first in zip(among_active, rows)]
        else:
            # Nothing reads them.
            rows = asked = ragged
        read = rows if active.skips_unread else [self.all_numbers(own) for own in ragged]
        if program.head is not None:
            self.asked = positions.gather(1, rows[0])
        self.read = positions
        if active.skips_unread:
            self.read = joined([own.gather(1, of) for own, of in zip(parts(positions, active.counts), read)])
        told = ActiveRows(ragged, read, rows, asked, active.skips_unread)
        try:
            if self.graphs is None or self.buffers is None:
                signals: Sequence[Tensor] = program.incremental(samples, *told.all, *inputs, *self.caches)
            else:
                self.graphs.counts.waits += active.waited
                signals = self.graphs.run(self.buffers, told, inputs)
        except BaseException:
            # Some caches may hold rows of this step and others not.
            self.release()
            raise
        self.met = self.unwatched(values)
        self.inputs.remember(self.watched(values), samples, positions, complete=active.complete)
        if program.sight is not None:
            if self.exactness is None:
                self.exactness = Exactness(program.sight, *program.shape, positions.device)
            self.exactness.leave(values, positions, complete=active.complete)
        # What compares rows with cached ones means nothing where there were none.
        return {own: value for own, value in zip(program.signals, signals) if not (first and compares_rows(own))}

    def take_caches(self, device: torch.device) -> None:
        """Have caches, where graphs may be recorded if they can be on the device."""
        program = self.program
        if self.graphs is not None and self.buffers is None:
            self.buffers = self.graphs.lend(program.samples, device, program.allocate)
            if self.buffers is not None:
                for own, cache in zip(self.buffers.caches, self.caches):
                    own.copy_(cache)
                self.caches = [*self.buffers.caches]
        if self.is_new:
            self.caches = program.allocate(device)

    def give_caches_back(self) -> None:
        """Leave the caches to a later session; results of the last call that somebody holds are copied before."""
        if self.graphs is None or self.buffers is None:
            return
        before = None if self.writer is None else self.writer()
        if before is not None:
            before.let_go()
        self.graphs.take_back(self.buffers)
        self.buffers = None

    def all_numbers(self, positions: Tensor) -> Tensor:
        """The numbers of all active tokens ``positions [B, A]``: ``[B, A]``, made once for each A."""
        count = positions.shape[1]
        if count not in self.numbers:
            found = torch.arange(count, device=positions.device).expand_as(positions)
            self.numbers[count] = found.contiguous()
        return self.numbers[count]

    def look(self, values: Values) -> Tensor | None:
        """The tokens whose cached rows are exact, bool ``[B, N]``; None where that is not known of any."""
        if self.exactness is None:
            return None
        return self.exactness.look(values, self.inputs.changed(self.watched(values), 0.0))

    def visible(self, values: Values) -> Tensor | None:
        """Tokens that the step does not drop, bool ``[B, N]``; None where it drops none."""
        return None if self.program.plan.visible is None else values[self.program.plan.visible]

    def choose(
        self,
        values: Values,
        must: Tensor,
        queried: Tensor,
        refresh: Refresh,
        measured: Sequence[Tensor] = (),
        *,
        only_queried: bool = False,
    ) -> ActiveStreams:
        """The tokens to compute in this step, those of ``must`` among them; all of them in a state's first step.

        Args:
            only_queried: whether results of other tokens than the ``queried`` may stay as they are.
        """
        program = self.program
        chosen = Refresh(program.tokens) if self.is_new else refresh
        skips = only_queried and bool(program.split.read_only) and chosen.count < program.tokens
        told = queried if program.observes_attention or skips or program.head is not None else None
        lengths = program.plan.axes.lengths
        return choose_streams(must, self.visible(values), chosen, lengths, measured, told, only_queried=skips)

    def age(self, call: int) -> Tensor:
        """How many calls before this one the results of each token were computed: ``[B, N]``; all before the first."""
        if self.computed_at is None:
            return torch.zeros((), dtype=torch.float32)
        return call - self.computed_at

    def note_read(self, active: ActiveStreams) -> Tensor:
        """Of a step's active tokens those whose results were computed, bool ``[B, N]``; the others are unread now."""
        nobody = torch.zeros(self.program.shape, dtype=torch.bool, device=active.positions.device)
        read = nobody.scatter(1, self.read, True)
        if active.skips_unread or self.unread is not None:
            computed = nobody.scatter(1, active.positions, True)
            self.unread = (computed if self.unread is None else self.unread | computed) & ~read
        before = (
            torch.zeros(read.shape, dtype=torch.float32, device=read.device)
            if self.computed_at is None
            else self.computed_at
        )
        self.computed_at = before.masked_fill(read, float(self.calls))
        return read

    def results(self, values: Values) -> list[Any]:
        """What the step returns, as leaves; a `WideResult` for that of the head."""
        program = self.program
        found = program.finish(values, self.caches)
        if program.head is not None and program.wide is not None:
            cached = {spec.value: cache for spec, cache in zip(program.split.caches, self.caches, strict=True)}
            found[program.wide] = WideResult(program.head, cached[program.head.head.value], values)
        return found

    def keep(self, samples: Tensor) -> None:
        """Go on with these ``samples [B']`` alone, under the program that `move_to` names."""
        before = None if self.writer is None else self.writer()
        if before is not None:
            # Nobody writes the caches that its results may be.
            before.note_age()
        samples = samples.to(self.caches[0].device)
        self.samples, self.numbers = None, {}
        # As in `Program.allocate`.
        with torch.inference_mode(False):
            kept = [
                spec.in_order(cache.index_select(spec.layout.batch_dim, samples))
                for spec, cache in zip(self.program.split.caches, self.caches)
            ]
            self.give_caches_back()
            self.writer, self.caches = None, kept
            if self.wide is not None and self.program.head is not None:
                self.wide = self.wide.index_select(self.program.head.spec.layout.batch_dim, samples)
            self.inputs.keep(samples)
            self.unread = None if self.unread is None else self.unread[samples]
            self.expected.forget()
            self.computed_at = None if self.computed_at is None else self.computed_at[samples]
        # Who saw whom is told by values of the step, which are others now.
        self.exactness = None

    def fits(self, program: Program) -> bool:
        """Whether what is kept can be that of ``program``, the same step for other samples."""
        own, other = self.program.split.caches, program.split.caches
        kinds = [(spec.name, tuple(cache.shape), cache.dtype) for spec, cache in zip(own, self.caches)]
        watched = [[each.node.name for each in given] for given in (self.program.watched, program.watched)]
        is_kept = bool(kinds) and self.inputs.shape == program.shape
        return is_kept and kinds == [(spec.name, spec.shape, spec.dtype) for spec in other] and watched[0] == watched[1]

    def move_to(self, program: Program) -> None:
        """Be the state of another program that it `fits`."""
        self.program.states.discard(self)
        self.program = program
        self.graphs = program.graphs
        program.states.add(self)
        self.prologue = Prologue(program.stages, program.plan.inputs)
        self.inputs.watched = program.watched

    def end(self) -> None:
        """Free the caches; results of earlier calls stay what they are."""
        self.give_caches_back()
        self.release()
        self.next_call()

    def release(self) -> None:
        """Forget everything: the next step computes every token."""
        self.caches = []
        self.buffers = None
        self.samples = None
        self.numbers = {}
        self.wide = None
        self.unread = None
        self.expected = ExpectedReads()
        self.computed_at = None
        self.prologue = Prologue(self.program.stages, self.program.plan.inputs)
        self.inputs = LastInputs(self.program.watched, *self.program.shape)
        self.exactness = None
        self.met = []


def parts(of_all: Tensor, counts: Sequence[int]) -> Sequence[Tensor]:
    """What each stream has of ``[B, A]``."""
    return [of_all] if len(counts) == 1 else of_all.split(list(counts), 1)


def joined(of_streams: Sequence[Tensor]) -> Tensor:
    """``[B, A]`` of all streams."""
    return of_streams[0] if len(of_streams) == 1 else torch.cat([*of_streams], 1)
