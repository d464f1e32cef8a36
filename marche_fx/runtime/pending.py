"""One call of a step, computed when its results are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..lazy.memory import is_still_wanted, tokens_wanted
from ..passes.capture.arguments import opened
from ..refresh import FullRefresh, InputDrift, Refresh
from .advice import runs_again_after_a_check, tell_of_a_moving_value, tell_of_a_whole_read
from .choose import ActiveStreams, highest
from .method import StepMethod
from .monitor import drift_of_cached
from .program import Program, Values
from .records import CallRecord, Choice, ReadRecord, SessionLog, StepRecord
from .results import CallResults
from .rounding import loss_by_rounding
from .state import StepState
from .terminal import saying
from .token_history import TokenHistory
from .users_code import is_check, users_line
from .verify import check_equal


def ranking(refresh: Refresh) -> Tensor | None:
    """The priority that chose a refresh set, ``[B, N]`` float32, whatever the policy writes into its own later."""
    if not refresh.count or refresh.priority is None:
        return None
    with torch.no_grad():
        return refresh.priority.to(torch.float32, copy=True)


def oldest_of(age: Tensor, tokens: Tensor | None) -> Tensor:
    """The age of the oldest row, of ages ``[B, N]``, or of one for all; among ``tokens`` where given."""
    return (age if tokens is None or not age.ndim else age.masked_fill(~tokens, 0.0)).amax()


class PendingStep:
    """One call of a step, computed when its results are read."""

    def __init__(
        self,
        method: StepMethod,
        history: TokenHistory,
        state: StepState,
        values: Values,
        log: SessionLog,
        stream: int,
        expected: Any,
        query: Tensor | None = None,
        kept: int = 0,
    ) -> None:
        self.method = method
        self.history = history
        self.state = state
        self.values = values
        self.log = log
        self.stream = stream
        self.expected = expected
        self.query = query
        """bool ``[B, N]``, the tokens of which the user says that they will be read; None where nobody does."""
        self.line = "" if query is None else users_line()
        """Where the step was called."""
        self.results = CallResults(state, values, log, stream)
        history.enter(method.order)
        self.record = CallRecord(method, state.program, stream, history.history.step, kept=kept)
        log.calls.append(self.record)
        self.moved: Callable[[], set[fx.Node]] = set
        """Which arguments differ from those of the call before: looked for where it is told."""
        self.exact: Any = None
        """What the original returns, where the session is monitored in this step."""
        self.is_tried = False
        """Whether it was computed, or could not be."""
        self.views: list[ref[Any]] = []
        """Late tensors of the results, or of what was computed of these."""
        self.spared: Tensor | None = None
        """bool ``[B, N]``, tokens that were read and not computed, where the policy has no room for all that are."""
        self.room = 0
        """For how many of a sample's tokens it has."""
        self.looked_at: Tensor | None = None
        """bool ``[B, N]``, the rows that the first read names, also behind one of all, and those that a query does."""
        self.named: Tensor | None = None
        """bool ``[B, N]``, the rows that the first read names; None where it is of all."""

    @property
    def program(self) -> Program:
        return self.state.program

    @property
    def is_checked(self) -> bool:
        """Whether cached rows are compared with exact ones after this step."""
        monitor = self.method.monitor
        return monitor is not None and not self.state.is_new and monitor.is_due(self.history.history.step)

    def read(self, queried: Tensor | None, *, is_read: bool = True) -> list[Any]:
        """The results as leaves, with the ``queried`` rows ``[B, N]`` computed by this call, unless a later one ran.

        Where None are given, those of all tokens that were active since their results were computed. What the user's
        query names is computed with what is read first.
        """
        with self.log.used():
            # Who reads all rows once may do so again.
            self.state.reads_all |= queried is None
            self.expect(queried)
            only_queried = not self.state.reads_all
            results, ran = self.results, self.record.runs
            if results.leaves is None:
                self.run(queried, only_queried=only_queried)
            elif not results.are_there(queried):
                if results.is_current and self.lacks(queried):
                    due = None if queried is None else self.due(queried)
                    self.run(due, again=True, only_queried=only_queried)
                results.have(queried)
            if self.looked_at is None:
                self.looked_at = queried
            if is_read:
                self.note_read(queried, runs_again=0 < ran < self.record.runs)
        assert results.leaves is not None
        return results.leaves

    def expect(self, queried: Tensor | None) -> None:
        """Expect of the next call the rows that are read beside those that the first read names."""
        if not self.results.is_current:
            return
        if not self.record.reads:
            self.named = queried
        elif queried is not None:
            self.state.expected.take_in(self.named, queried)

    def has(self, tokens: Tensor | None) -> bool:
        """Whether it has been computed, with the rows of ``tokens``, bool ``[B, N]``."""
        return self.results.leaves is not None and (tokens is None or not self.lacks(tokens))

    def note_read(self, queried: Tensor | None, *, runs_again: bool = False) -> None:
        """Take down who read which rows, how old they are, and whether the step ran once more for them."""
        age = self.results.ages()
        asked = self.state.visible(self.values) if queried is None else queried
        rows = None if queried is None else queried.sum(1)
        spared = None
        if asked is not None and self.spared is not None and age.ndim:
            left = asked & self.spared & ~self.results.computed
            asked, spared = asked & ~left, (left.sum(), age.masked_fill(~left, 0.0).amax())
        oldest = oldest_of(age, asked)
        line, by_check = users_line(), rows is None and is_check()
        if rows is None and not by_check:
            self.telling_of_a_whole_read(oldest)()
        if runs_again and any(own.is_check for own in self.record.reads):
            self.method.warn_once(runs_again_after_a_check(self.method, line), topic="a check")
        self.record.reads.append(ReadRecord(line, rows, oldest, spared, is_check=by_check, runs_again=runs_again))

    def to_note_later(self) -> Callable[[], None]:
        """What notes a read as a whole of what was computed of the results as they are now."""
        oldest = oldest_of(self.results.ages(), self.state.visible(self.values))
        reads, telling = self.record.reads, self.telling_of_a_whole_read(oldest)

        def note() -> None:
            telling()
            reads.append(ReadRecord(users_line(), None, oldest))

        return note

    def telling_of_a_whole_read(self, oldest: Tensor) -> Callable[[], None]:
        """Nothing where a query says what is read, or another step reads it."""
        if self.query is not None or not self.method.is_last:
            return lambda: None
        return partial(tell_of_a_whole_read, self.method, self.record, oldest)

    def note_query(self) -> None:
        """Take down which rows the user's query names, which this call computes where the policy has room for them."""
        assert self.query is not None
        rows, oldest = self.query.sum(1), torch.zeros((), device=self.query.device)
        self.record.reads.append(ReadRecord(self.line, rows, oldest, by_query=True))

    def read_by_holders(self) -> None:
        """Compute the call before the next one, if somebody still holds late tensors of which nothing was read."""
        if not self.is_tried:
            wanted = tokens_wanted(self)
            only_queried = wanted is not None and not self.state.reads_all
            self.run(wanted, only_queried=only_queried, is_read=False)

    def lacks(self, queried: Tensor | None) -> bool:
        """Whether some of the ``queried`` are without results of this call, or any without those of its last inputs."""
        if queried is None:
            return self.state.unread is not None and bool(self.state.unread.any())
        return bool((self.due(queried) & ~self.results.computed).any())

    def due(self, queried: Tensor) -> Tensor:
        """Of ``queried`` tokens those that are computed if they are read again.

        Of tokens that the policy had no room for, a later read of this call gets what it reads of each sample computed
        where there is room for it: those few that a loop is about to keep. It looked at them with the others then, by
        the first read; of rows that are read one after another each would seem to be few.
        """
        if self.spared is None:
            return queried
        spared = queried & self.spared & ~self.results.computed
        if self.looked_at is None:
            return queried & ~spared
        kept = spared & self.looked_at
        return queried & (~spared | (kept & (kept.sum(1, keepdim=True) <= self.room)))

    def afforded(self, queried: Tensor, named: Tensor, changed: Tensor, refresh: Refresh) -> Tensor:
        """The tokens that are computed before the refresh set is: the changed ones, and the ``queried`` ones.

        Where the policy bounds these, so many of them as there is room for, those that are ``named`` and not only
        expected first. Others are spared, unless the refresh set has them.
        """
        if refresh.queried is None or refresh.count >= self.program.tokens or self.state.is_new:
            return changed | queried
        others, urgency = queried & ~changed, refresh.priority if refresh.urgency is None else refresh.urgency
        assert urgency is not None
        self.room = min(refresh.queried, self.program.tokens)
        urgency = urgency.float().masked_fill(~named, -torch.inf)
        must = changed | (others & highest(urgency, others, self.room))
        refreshed = must
        if refresh.priority is not None and len(self.program.plan.axes.lengths) == 1:
            refreshed = highest(refresh.priority, ~must, refresh.count)
        self.spared = others & ~must & ~refreshed
        return must

    def run(
        self, queried: Tensor | None, *, again: bool = False, only_queried: bool = False, is_read: bool = True
    ) -> None:
        """Compute the changed tokens, the queried ones and, the first time, the refresh set.

        Args:
            again: after a first time. only_queried: whether results of other tokens than those may stay as they are.
            is_read: by the loop; not where a later call is about to overwrite what it may still read.
        """
        self.is_tried = True
        self.record.runs += 1
        policy, history, began = self.method.policy, self.history, time.perf_counter()
        # A late step may be read outside of the autocast that it was called in.
        with torch.no_grad(), self.program.plan.dense.autocast.restored():
            is_new = self.state.is_new
            changed = self.state.changed(self.values, policy.tolerance)
            if not again and not is_new:
                self.record.changed = self.state.inputs.moved
            if self.query is not None and not again:
                queried = self.query if queried is None else queried | self.query
                self.note_query()
            beside = None if again else self.state.expected.beside(queried)
            # Where nobody says which tokens are read, the changed ones speak for them.
            asked = changed if queried is None else queried
            asked = asked if beside is None else asked | beside
            moved = self.state.input_drift(self.values) if InputDrift() in policy.signals else None
            refresh = (
                Refresh(0) if again else history.choose(self.visible(changed), self.visible(asked), moved, self.look)
            )
            must = changed | asked
            # What is expected behind a read of all rows has the room for those that are named.
            first = beside if queried is None else queried
            if first is not None and not again:
                self.looked_at = queried
                must = self.afforded(asked, first, changed, refresh)
                asked = asked if self.spared is None else asked & ~self.spared
            is_named = is_read and queried is not None
            active = self.compute(changed, asked, must, refresh, only_queried=only_queried, is_named=is_named)
            if is_new and active.complete and self.program.rounding is None and policy != FullRefresh():
                self.program.rounding = loss_by_rounding(self.method, self.state, self.values)
            drift = None if self.exact is None or active.complete else self.drift()
            if drift is not None and self.is_off(drift):
                active = self.compute(changed, asked, must, Refresh(self.program.tokens))
        if drift is not None:
            self.log.records[-1] = replace(self.log.records[-1], drift=drift)
        self.record.active, self.record.visible = max(self.record.active, sum(active.counts)), active.visible
        self.record.wanted = max(self.record.wanted, active.visible if is_new else refresh.count)
        self.record.seconds += 0.0 if is_new else time.perf_counter() - began
        self.exact = None
        if self.record.is_full and not again:
            self.record.moved = self.moved()
        if self.record.is_forced and not again:
            tell_of_a_moving_value(self.method, self.log.calls)
        if self.expected is not None:
            check_equal(str(self.method), self.results.tree(), self.expected, rounded_to=self.program.rounded_to)
            self.expected = None
            self.program.verified = True

    def compute(
        self,
        changed: Tensor,
        asked: Tensor,
        must: Tensor,
        refresh: Refresh,
        *,
        only_queried: bool = False,
        is_named: bool = False,
    ) -> ActiveStreams:
        """Compute the tokens of ``must`` and those that are refreshed, and results of those asked for; note it.

        Args:
            is_named: whether a read names those asked for.
        """
        history, again = self.history, self.results.leaves is not None
        if self.state.unread is not None and not only_queried:
            must = must | self.state.unread
        active = self.state.choose(self.values, must, asked, refresh, history.measured, only_queried=only_queried)
        self.record.computed += sum(active.counts)
        history.take_in(active.measured)
        self.state.begin_writing(self)
        with self.saying_at_first(is_complete=active.complete):
            signals = self.state.compute(self.values, active, asked)
        history.leave(self.method.order, active, signals)
        computed = self.state.note_read(active)
        record = StepRecord(
            self.method.name,
            self.program,
            active.counts,
            active.read,
            active.visible,
            Choice(active.positions, changed, asked),
            again=again,
            stream=self.stream,
            computed=computed,
            results=None if self.program.head is None else 0,
            call=self.record,
            score=None if active.complete else ranking(refresh),
            spared=self.spared,
        )
        self.log.records.append(record)
        self.results.take(len(self.log.records) - 1, computed, is_named=is_named, spares=self.spared is not None)
        return active

    @contextmanager
    def saying_at_first(self, *, is_complete: bool) -> Iterator[None]:
        """Say that code is compiled: in the first step of all tokens, and in the first of some."""
        ran = self.program.ran
        if is_complete in ran or not self.method.settings.compile:
            yield
            return
        tokens = "all tokens" if is_complete else "some tokens"
        with saying(f"compiling {self.method} for {tokens}"):
            yield
        ran.add(is_complete)

    def visible(self, tokens: Tensor) -> Tensor:
        """Those of ``tokens``, bool ``[B, N]``, that the step does not drop."""
        visible = self.state.visible(self.values)
        return tokens if visible is None else tokens & visible

    def look(self) -> Tensor | None:
        """The tokens whose cached rows are exact, bool ``[B, N]``."""
        return self.state.look(self.values)

    def drift(self) -> float:
        """How far cached rows of the results are from exact ones."""
        monitor = self.method.monitor
        assert monitor is not None
        assert self.results.leaves is not None
        exact, step = pytree.tree_leaves(opened(self.exact)), self.history.history.step
        return drift_of_cached(monitor, self.program, self.results.leaves, exact, self.results.computed, step)

    def is_off(self, drift: float) -> bool:
        monitor = self.method.monitor
        return monitor is not None and not drift <= monitor.max_drift

    def note_age(self) -> None:
        """Take down how old the results are, before another call computes some anew."""
        self.results.note_age()

    def let_go(self) -> None:
        """Another call is about to write the caches: keep the results if somebody holds late tensors of them."""
        self.note_age()
        if self.results.leaves is not None and is_still_wanted(self, self.results.largest):
            self.results.keep()
