"""One captured step at run time: find what changed, choose the active tokens, compute them, keep the caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .changes import LastInputs
from .choice import ActiveStreams, choose_streams
from .measure import compares_rows, inserter, reads_results
from .passes.capture import Capture
from .passes.cost import step_cost
from .passes.hooks import emit
from .passes.lower import lower
from .passes.plan import Plan
from .passes.products import multiply_by_onednn
from .passes.split import split
from .passes.stages import cut_stages
from .passes.watch import find_watched
from .prologue import Prologue, Values
from .refresh import AttentionReceived, InputDrift, Refresh, Signal
from .row_outputs import can_wait, find_row_outputs


class Program:
    """A step rewritten to compute active tokens only. It holds no state of a generation: sessions share it.

    Args:
        plan: what the passes found. model: whose weights are read at every call.
        signals: what to measure for the refresh policy.
        skip_unread: whether rows of the results that nobody reads may be left out.
    """

    def __init__(
        self, plan: Plan, model: nn.Module, *, signals: Sequence[Signal], compile: bool, skip_unread: bool = False
    ) -> None:
        self.plan = plan
        self.row_outputs = find_row_outputs(plan)
        self.is_late = can_wait(plan, self.row_outputs)
        skip_unread = skip_unread and self.is_late and not any(reads_results(signal) for signal in signals)
        plain = split(plan.dense.graph_module, plan.axes, plan.region, plan.sites, skip_unread=skip_unread)
        wanted = [signal for signal in signals if not isinstance(signal, InputDrift)]
        self.split, found = emit(plain, plan, [inserter(signal) for signal in wanted])
        self.signals = tuple(wanted[number] for number in found)
        self.read_later = {*self.split.incremental.inputs, *self.split.epilogue.inputs}
        self.watched = find_watched(plain, plan.region, plan.axes, plan.inputs)
        self.cost = step_cost(plan.graph, plan.axes, plan.region, self.split.read_only)
        before = [node for node in plan.graph.nodes if node.op == "call_function" and plan.region.is_before(node)]
        self.stages = cut_stages(plan.dense.graph_module, before, self.split.prologue.outputs, plan.inputs)
        self.incremental = lower(self.split, compile=compile)
        if compile:
            for part in (self.split.epilogue, *(stage.part for stage in self.stages)):
                multiply_by_onednn(part.module)
        self.weights = {node: owner(model, path) for node, path in plan.dense.weights.items()}
        self.weight_kinds = self.current_weight_kinds()
        self.verified = False

    @property
    def samples(self) -> int:
        return self.plan.samples

    @property
    def tokens(self) -> int:
        return self.plan.axes.length

    @property
    def shape(self) -> tuple[int, int]:
        """Samples B and tokens N."""
        return self.samples, self.tokens

    @property
    def observes_attention(self) -> bool:
        """Whether the attention of queried tokens is measured."""
        return any(isinstance(signal, AttentionReceived) for signal in self.signals)

    @property
    def rounded_to(self) -> set[torch.dtype]:
        """Floating-point dtypes that the step casts values of higher precision to."""
        casts = [node for node in self.plan.graph.nodes if node.target is torch.ops.aten._to_copy.default]
        kinds = [(node.args[0].meta["val"].dtype, node.meta["val"].dtype) for node in casts]
        return {new for old, new in kinds if new.is_floating_point and old.is_floating_point and is_coarser(new, old)}

    @property
    def readable(self) -> dict[tuple[int, int], int]:
        """Shapes of masks that say which tokens are read: those of a result's rows, or all; and the first token."""
        rows = next((own for own in self.row_outputs if own is not None), None)
        own = {} if rows is None else {(self.samples, rows.count): rows.offset}
        return {**own, self.shape: 0}

    def among_all_tokens(self, read: Tensor) -> Tensor:
        """A mask of a result's rows, or of all tokens, as one of all tokens."""
        start = self.readable[len(read), read.shape[1]]
        return nn.functional.pad(read, (start, self.tokens - start - read.shape[1]))

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the program was made for arguments, and weights, of these kinds."""
        return self.current_weight_kinds() == self.weight_kinds and self.plan.dense.accepts(args, kwargs)

    def current_weight_kinds(self) -> list[Any]:
        return [weight_kind(weight) for weight in self.current_weights().values()]

    def current_weights(self) -> Values:
        return {node: table[name] for node, (table, name) in self.weights.items()}

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Values:
        """The tensors among the step's arguments."""
        leaves = pytree.tree_leaves((args, kwargs))
        return {own.node: leaf for own, leaf in zip(self.plan.dense.inputs, leaves) if own.node is not None}

    def step_values(self, given: Values, computed: Values) -> Values:
        """What the rest of the step reads of its arguments and of the prologue's values."""
        # The caller may overwrite its tensors before a late-bound step reads them.
        theirs = {leaf.untyped_storage().data_ptr() for leaf in given.values()}
        found = {node: value for node, value in {**given, **computed}.items() if node in self.read_later}
        for node, value in found.items():
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in theirs:
                found[node] = value.clone()
        return found if self.plan.visible is None else {**found, self.plan.visible: computed[self.plan.visible]}

    def allocate(self, device: torch.device) -> list[Tensor]:
        """The caches of one session, in the order of `Split.caches`."""
        # Not as inference tensors: a session may go on outside of inference mode.
        with torch.inference_mode(False):
            return [torch.zeros(spec.shape, dtype=spec.dtype, device=device) for spec in self.split.caches]

    def finish(self, values: Values, caches: list[Tensor]) -> list[Any]:
        """Run the epilogue: the step's results, as leaves of what it returns."""
        cached = {spec.value: cache for spec, cache in zip(self.split.caches, caches, strict=True)}
        leaves = self.split.epilogue.module(
            *(cached.get(node, values.get(node)) for node in self.split.epilogue.inputs)
        )
        owned = {cache.untyped_storage().data_ptr() for cache in caches}
        return [
            leaf.clone() if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in owned else leaf
            for leaf in leaves
        ]


def all_numbers(positions: Tensor) -> Tensor:
    """The numbers of all active tokens ``positions [B, A]``: ``[B, A]``."""
    return torch.arange(positions.shape[1], device=positions.device).expand_as(positions).contiguous()


def is_coarser(dtype: torch.dtype, other: torch.dtype) -> bool:
    return torch.finfo(dtype).eps > torch.finfo(other).eps


def owner(model: nn.Module, path: str) -> tuple[dict[str, Any], str]:
    """The table in which a module keeps the parameter or buffer at ``path``, and its name there."""
    parent, _, name = path.rpartition(".")
    module = model.get_submodule(parent)
    return (module._parameters if name in module._parameters else module._buffers), name


def fits_weights(capture: Capture, model: nn.Module) -> bool:
    """Whether the weights of a model are of the kinds that a captured step was made for."""
    for node, path in capture.weights.items():
        table, name = owner(model, path)
        if weight_kind(table[name]) != weight_kind(node.meta["val"]):
            return False
    return True


def weight_kind(weight: Tensor | None) -> Any:
    return None if weight is None else (weight.shape, weight.dtype, weight.device)


class StepState:
    """One step of one session: its caches, and the inputs that each token was last computed with."""

    caches: list[Tensor]
    unread: Tensor | None
    """bool ``[B, N]``, tokens whose results were left out when they were last active; None before any was."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.reads_all = False
        """Whether results were read as a whole: from then on those of every active token are computed."""
        self.release()

    @property
    def is_new(self) -> bool:
        return not self.caches

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Values:
        """Run the prologue, everything before the region, on all tokens, as far as what it reads changed."""
        given = self.program.given(args, kwargs)
        fixed = {**self.program.current_weights(), **self.program.plan.dense.constants}
        computed = self.prologue.run({**fixed, **given})
        return {**fixed, **self.program.step_values(given, computed)}

    def changed(self, values: Values, tolerance: float) -> Tensor:
        """Tokens whose inputs moved since they were last computed: bool ``[B, N]``."""
        return self.inputs.changed([values[watched.node] for watched in self.program.watched], tolerance)

    def input_drift(self, values: Values) -> Tensor:
        """How far each token's inputs moved since it was last computed, over their norm: ``[B, N]`` float32."""
        return self.inputs.drift([values[watched.node] for watched in self.program.watched])

    def compute(self, values: Values, active: ActiveStreams, queried: Tensor) -> dict[Signal, Tensor]:
        """Recompute the active tokens; return what was measured, ``[B, N]`` each, NaN where a token was not.

        ``queried`` is bool ``[B, N]``.
        """
        program, positions = self.program, active.positions
        inputs = [values[node] for node in program.split.incremental.inputs]
        first = self.is_new
        if first:
            self.caches = program.allocate(inputs[0].device)
        samples = torch.arange(program.samples, device=positions.device)[:, None]
        ragged = [own.positions for own in active.streams]
        among_active = queried.gather(1, positions).split(active.counts, 1)
        rows = [own.float().topk(stream.queried, 1).indices for own, stream in zip(among_active, active.streams)]
        asked = [own.gather(1, first) for own, first in zip(among_active, rows)]
        # Never the same tensors: whether two inputs are one is something that compiled code is compiled for.
        read = [own.clone() for own in rows] if active.skips_unread else [all_numbers(own) for own in ragged]
        try:
            signals = program.incremental(samples, *ragged, *read, *rows, *asked, *inputs, *self.caches)
        except BaseException:
            # Some caches may hold rows of this step and others not.
            self.release()
            raise
        now = [values[watched.node] for watched in program.watched]
        self.inputs.remember(now, samples, positions, complete=active.complete)
        # What compares rows with cached ones means nothing where there were none.
        return {own: value for own, value in zip(program.signals, signals) if not (first and compares_rows(own))}

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
        told = queried if program.observes_attention or skips else None
        lengths = program.plan.axes.lengths
        return choose_streams(must, self.visible(values), chosen, lengths, measured, told, only_queried=skips)

    def note_read(self, active: ActiveStreams, queried: Tensor) -> Tensor:
        """Of a step's active tokens those whose results were computed, bool ``[B, N]``; the others are unread now."""
        computed = torch.zeros_like(queried).scatter(1, active.positions, True)
        read = computed & queried if active.skips_unread else computed
        if active.skips_unread or self.unread is not None:
            self.unread = (computed if self.unread is None else self.unread | computed) & ~read
        return read

    def results(self, values: Values) -> list[Any]:
        return self.program.finish(values, self.caches)

    def release(self) -> None:
        """Forget everything: the next step computes every token."""
        self.caches = []
        self.unread = None
        self.prologue = Prologue(self.program.stages)
        self.inputs = LastInputs(self.program.watched, *self.program.shape)
