"""The graphs of one rewritten step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from ...passes.graph.source import describe
from ...passes.lower.conditions import settings
from ...passes.rewrite.sites import SITE
from .buffers import Buffers, KnownStep, is_copied, kind_of
from .counts import GraphCounts
from .recorded import MOST_APART, RecordedStep, are_too_many, known_apart
from .recorder import Recorder
from .rows import ActiveRows, blank_rows, fill
from .store import Graphs

Run = Callable[..., Sequence[Tensor]]


class StepGraphs:
    """The graphs of one rewritten step, on the buffers of its sessions.

    A step is of a kind: buckets of rows, settings such as autocast, forms of its inputs, and where its weights are. The
    first of a kind runs operator by operator on the buffers, so that all it needs is loaded and compiled; the second is
    recorded. The same code runs where something else records than CUDA.

    Args:
        store: what all steps of the model share. run: the step, ``module`` its graph.
        fixed: numbers of its inputs that are weights and constants, which are read where they are.
        lengths: tokens of each stream.
    """

    def __init__(
        self, store: Graphs, run: Run, module: fx.GraphModule, fixed: Collection[int], lengths: Sequence[int]
    ) -> None:
        self.store = store
        self.run_plainly = run
        self.module = module
        self.fixed = fixed
        self.lengths = lengths
        self.counts = GraphCounts()
        self.apart = known_apart(module)
        """Operators that no graph can hold, with why."""
        self.changing = ""
        """An operator that runs between graphs and whose values these cannot go by."""

    # --------------------------------------------------------------------------------------------------- sessions

    def lend(
        self, samples: int, device: torch.device, allocate: Callable[[torch.device], list[Tensor]]
    ) -> Buffers | None:
        """Buffers for a session, with caches of zeros; None where nothing can be recorded."""
        if self.store.recorder(device) is None:
            return None
        own = self.store.take(self, device)
        if own is None:
            with torch.inference_mode(False):
                own = Buffers(allocate(device), torch.arange(samples, device=device)[:, None])
            with self.store.lock:
                self.store.buffers.add(own)
            return own
        for cache in own.caches:
            cache.zero_()
        return own

    def take_back(self, buffers: Buffers) -> None:
        """A session is over; nobody reads its caches any longer."""
        buffers.forget_inputs()
        self.store.leave(self, buffers)

    # ------------------------------------------------------------------------------------------------------ steps

    def run(self, buffers: Buffers, rows: ActiveRows, inputs: Sequence[Any]) -> Sequence[Tensor]:
        """Compute the active ``rows``; return the signals. ``inputs`` are those of the rewritten step."""
        why_not = self.why_not(buffers, inputs)
        if why_not:
            self.counts.without[why_not] += 1
            return self.run_plainly(buffers.samples, *rows.all, *inputs, *buffers.caches)
        with torch.inference_mode(False), torch.no_grad():
            own = self.known(buffers, rows, inputs)
            if self.store.stopped and not own.is_recorded:
                self.counts.without[self.store.stopped] += 1
                return self.run_plainly(buffers.samples, *rows.all, *inputs, *buffers.caches)
            fill(own.rows, rows)
            for number, value in enumerate(inputs):
                if is_copied(number, value, self.fixed):
                    buffers.hold(number, value)
            self.counts.rows += own.rows.count
            self.counts.padding += own.rows.count - rows.count
            if own.recorded is None:
                own.recorded = RecordedStep(self.module, own.args, self.apart)
                self.counts.first += 1
                return self.run_plainly(*own.args)
            # Graphs share memory for what they compute: no other is launched before the signals are copied.
            with self.store.lock:
                launch = self.replay if own.is_recorded else self.record
                return [signal.clone() for signal in launch(buffers, own)]

    def why_not(self, buffers: Buffers, inputs: Sequence[Any]) -> str:
        """Why a step can be no graph; empty where it can."""
        if torch._C._len_torch_dispatch_stack():
            return "a dispatch mode is to see every operator"
        if are_too_many(self.apart):
            return f"more than {MOST_APART} of its operators cannot be recorded"
        if self.changing:
            return f"{self.changing} gives values of another form from step to step"
        device = buffers.samples.device
        elsewhere = next((own.device for own in inputs if isinstance(own, Tensor) and own.device != device), None)
        if elsewhere is not None:
            # What a processor holds is read when a step is recorded, and never again.
            return f"it reads a tensor on {elsewhere.type}, and computes on {device.type}"
        return ""

    def known(self, buffers: Buffers, rows: ActiveRows, inputs: Sequence[Any]) -> KnownStep:
        """The steps of this kind."""
        sizes, (fixed, forms) = rows.sizes(self.lengths), kind_of(inputs, self.fixed)
        kind = sizes, fixed, forms, settings(buffers.samples.device.type)
        with self.store.lock:
            if kind not in buffers.steps:
                # Of weights that are elsewhere by now nobody needs a graph, and they would stay in memory for it.
                for other in [other for other, step in buffers.steps.items() if step.fixed != fixed]:
                    self.store.drop(buffers, other)
                blank = blank_rows(sizes, len(buffers.samples), buffers.samples.device)
                held = [
                    buffers.hold(number, value) if is_copied(number, value, self.fixed) else value
                    for number, value in enumerate(inputs)
                ]
                args = (buffers.samples, *blank.all, *held, *buffers.caches)
                buffers.steps[kind] = KnownStep(blank, args, fixed)
                self.store.make_room(buffers.steps[kind], self.recorder(buffers).limit)
            own = buffers.steps[kind]
            own.used = self.store.next_step()
            return own

    def recorder(self, buffers: Buffers) -> Recorder:
        """What records on these, which are lent where something does."""
        found = self.store.recorder(buffers.samples.device)
        assert found is not None
        return found

    def replay(self, buffers: Buffers, own: KnownStep) -> Sequence[Tensor]:
        """Run a step of a kind that was recorded."""
        assert own.recorded is not None
        found: Sequence[Tensor] = own.recorded.replay()
        changed = own.recorded.changed
        if changed is None:
            self.counts.replays += 1
        else:
            self.changing = place_of(changed)
            self.counts.without[self.why_not(buffers, ())] += 1
        return found

    def record(self, buffers: Buffers, own: KnownStep) -> Sequence[Tensor]:
        """Run a step of a kind that ran before, and record it."""
        recorder, recorded = self.recorder(buffers), own.recorded
        assert recorded is not None
        with keeping_no_casts():
            self.record_larger(recorder, buffers, own)
            if self.store.stopped:
                self.counts.without[self.store.stopped] += 1
                return self.run_plainly(*own.args)
            found: Sequence[Tensor] = recorded.record(recorder)
        self.counts.captures += len(recorded.graphs)
        self.counts.apart = {place_of(node): why for node, why in self.apart.items()}
        if recorded.failure is None:
            self.counts.recorded += 1
        else:
            self.counts.without[self.store.stop(recorded.failure)] += 1
        self.store.make_room(own, recorder.limit)
        return found

    def record_larger(self, recorder: Recorder, buffers: Buffers, own: KnownStep) -> None:
        """Record the kinds with more rows that ran before: smaller graphs find room in the memory of larger ones."""
        known = [each for each in buffers.steps.values() if each.recorded is not None and not each.is_recorded]
        larger = [each for each in known if each.rows.count > own.rows.count]
        for each in sorted(larger, key=lambda each: each.rows.count, reverse=True):
            assert each.recorded is not None
            each.recorded.record_beforehand(recorder)
            self.counts.captures += len(each.recorded.graphs)
            if each.recorded.failure is not None:
                self.store.stop(each.recorded.failure)
                return


def place_of(node: fx.Node) -> str:
    """``compiled, of attention blocks.0.attn``: an operator, or code compiled of several, and which site it is of."""
    site = node.meta.get(SITE)
    return describe(node) if site is None else f"{describe(node)}, of {site}"


@contextmanager
def keeping_no_casts() -> Iterator[None]:
    """Let autocast keep no weights that it casts: they are freed when it ends, and graphs would still read them."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
