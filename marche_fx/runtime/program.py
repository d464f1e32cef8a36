"""A step rewritten to compute active tokens only: what its sessions share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, fx, nn

from ..passes.analysis.ids import reader_of_ids
from ..passes.analysis.plan import Plan
from ..passes.analysis.row_outputs import RowOutput, can_wait, find_row_outputs
from ..passes.analysis.sight import find_sight
from ..passes.capture.arguments import flattened
from ..passes.capture.bools import numbers_of_bools, with_numbers
from ..passes.capture.captured import Capture, argument_names, leaf_names
from ..passes.graph.operands import shape_of
from ..passes.graph.reach import ancestors
from ..passes.graph.source import describe
from ..passes.lower.packed import PACKED, can_be_packed
from ..passes.lower.products import has_onednn
from ..passes.lower.shared import SharedCode
from ..passes.pipeline import rewrite
from ..passes.rewrite.lengths import Likeness, compare_rows, find_unwatched
from ..passes.rewrite.watch import Watched
from ..refresh import AttentionReceived, InputDrift, ResultConfidence, Signal
from .graphs.step import StepGraphs
from .graphs.store import Graphs
from .measure import inserter, reads_results
from .prologue import Values
from .weights import find_weight, weight_kind


class Program:
    """A step rewritten to compute active tokens only. It holds no state of a generation: sessions share it.

    Args:
        plan: what the passes found. model: whose weights are read at every call.
        signals: what to measure for the refresh policy.
        skip_unread: whether rows of the results that nobody reads may be left out.
        headed: whether a wide result may be computed where it is read, of rows and not of all tokens at once.
        tolerance: by name of an argument how far what is computed from it may move before tokens count as changed.
        cache_dtype: what cached rows are rounded to that other tokens read.
        shared: what was compiled of the step for other lengths.
        graphs: those of the model, where its steps are to run as graphs.
        pack_weights: whether compiled products read packed copies of the weights.
    """

    def __init__(
        self,
        plan: Plan,
        model: nn.Module,
        *,
        signals: Sequence[Signal],
        compile: bool,
        skip_unread: bool = False,
        headed: bool = False,
        tolerance: Mapping[str, float] | None = None,
        cache_dtype: torch.dtype | None = None,
        shared: SharedCode | None = None,
        graphs: Graphs | None = None,
        pack_weights: bool = False,
    ) -> None:
        self.plan = plan
        self.row_outputs = find_row_outputs(plan)
        self.is_late = can_wait(plan, self.row_outputs)
        skip_unread = skip_unread and self.is_late and not any(reads_results(signal) for signal in signals)
        wanted = [signal for signal in signals if not isinstance(signal, InputDrift)]
        inserts = [inserter(own) for own in wanted]
        headed = headed and not any(isinstance(signal, ResultConfidence) for signal in signals)
        rewritten = rewrite(
            plan,
            inserts,
            skip_unread=skip_unread,
            headed=headed,
            cache_dtype=cache_dtype,
            compile=compile,
            shared=shared,
            packed=pack_weights,
        )
        self.passes = (*plan.passes, *rewritten.passes)
        self.split = rewritten.split
        self.signals = tuple(wanted[number] for number in rewritten.hooked)
        self.unmeasured = tuple(own for own in wanted if own not in self.signals)
        """Signals for which the step has no site."""
        self.watched = rewritten.watched
        self.stages = rewritten.stages
        self.incremental = rewritten.incremental
        self.lowered = rewritten.lowered
        self.cost = rewritten.cost
        self.head = self.split.head
        told = (*self.split.rows, *self.split.queried)
        self.tells_queried = self.head is not None or any(own.users for own in told)
        """Whether the step reads which of the active tokens are queried."""
        self.wide = None if self.head is None else plan.results.index(self.head.head.result)
        """Number of the result that is computed where it is read."""
        self.read_later = {*self.split.incremental.inputs, *self.split.epilogue.inputs}
        self.read_later |= set() if self.head is None else {*self.head.part.inputs}
        sight = find_sight(plan)
        self.sight = sight if sight and all(node in self.read_later for node, _ in sight.masks) else None
        """Whom each token attends to, where the step's values tell."""
        self.input_names = input_names(model, plan)
        self.leaf_names = leaf_names(getattr(model, plan.dense.step), plan.dense)
        """The argument that each leaf of a step's arguments is, or is in."""
        self.token_inputs = token_inputs(plan, self.watched)
        """Arguments that say what the tokens are, so that a decoding step is expected to change them."""
        self.allowed = [allowed(self, own, tolerance or {}) for own in self.watched]
        """For each watched value how far it may move, where somebody said so."""
        self.unwatched = find_unwatched(plan, self.split, {own.node for own in self.watched})
        self.likenesses: WeakKeyDictionary[Program, Likeness] = WeakKeyDictionary()
        """By program of another length."""
        self.weights = {node: find_weight(model, path) for node, path in plan.dense.weights.items()}
        self.weight_kinds = self.current_weight_kinds()
        self.graphs = None if graphs is None else self.graphs_among(graphs, rewritten.lowered)
        self.bools = set(plan.original.bools)
        """Sets of arguments, by number of the leaf, that may be bool where the captured step has numbers."""
        self.verified = False
        self.original_seconds: float | None = None
        """What a call of the original takes; None where nobody looked, or it is long."""
        self.used = 0
        """When it was last called, in calls of any program."""
        self.states: WeakSet[Any] = WeakSet()
        """What sessions keep of it."""
        self.rounding: float | None = None
        """What rounded caches cost the rows of a partial step, see `loss_by_rounding`; None where nobody looked."""
        self.ran: set[bool] = set()
        """Whether a step of all tokens ran, and one of some: code is compiled at the first of each."""

    @property
    def step(self) -> str:
        """Name of the step method."""
        return self.plan.dense.step

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
    def has_caches(self) -> bool:
        """Whether a session that is open has caches of it."""
        return any(not own.is_new for own in self.states)

    def likeness(self, other: Program) -> Likeness:
        """Whether rows that ``other`` computed, of the same step for another length, are rows of this one."""
        if other not in self.likenesses:
            self.likenesses[other] = compare_rows(other.plan, other.split, self.plan, self.split)
        return self.likenesses[other]

    @property
    def observes_attention(self) -> bool:
        """Whether the attention of queried tokens is measured."""
        return any(isinstance(signal, AttentionReceived) for signal in self.signals)

    @property
    def rounds(self) -> bool:
        """Whether cached rows are less precise than computed ones."""
        return any(spec.rounded_to is not None for spec in self.split.caches)

    @property
    def rounded_to(self) -> set[torch.dtype]:
        """Floating-point dtypes that the step casts values of higher precision to."""
        casts = [node for node in self.plan.graph.nodes if node.target is torch.ops.aten._to_copy.default]
        # Numbers may be cast, too, where `torch.vmap` made tensors of them.
        read = [(node.args[0], node) for node in casts if isinstance(node.args[0], fx.Node)]
        kinds = [(own.meta["val"].dtype, node.meta["val"].dtype) for own, node in read]
        return {new for old, new in kinds if new.is_floating_point and old.is_floating_point and is_coarser(new, old)}

    @property
    def tokens_in_words(self) -> str:
        """``70``, or ``70 = 6 + 64``: the tokens of all streams, in their order."""
        lengths = self.plan.axes.lengths
        return str(self.tokens) if len(lengths) == 1 else f"{self.tokens} = {' + '.join(map(str, lengths))}"

    @property
    def readable(self) -> dict[tuple[int, ...], RowOutput | None]:
        """Shapes of masks that say which tokens are read: those of a result's rows, and of all tokens."""
        rows = [own for own in self.row_outputs if own is not None and own.numbers is not None]
        own = {(row.samples, row.count) if row.dims else row.rows: row for row in rows[:1]}
        return {**own, self.shape: None}

    def among_all_tokens(self, read: Tensor) -> Tensor:
        """A mask of a result's rows, or of all tokens, as one of all tokens."""
        row = self.readable[tuple(read.shape)]
        if row is None or row.numbers is None:
            return read
        found = torch.zeros(self.samples * self.tokens, dtype=torch.bool, device=read.device)
        for numbers in row.numbers.to(read.device):
            in_order = numbers if row.dims is None else numbers.movedim(row.dims, (0, 1))
            found[in_order.reshape(read.shape)[read]] = True
        return found.view(self.shape)

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the program was made for arguments, and weights, of these kinds."""
        return self.plan.dense.accepts(args, kwargs) and self.current_weight_kinds() == self.weight_kinds

    def accepts_bools(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, proven: bool = True) -> bool:
        """Whether it was made for arguments of these kinds but for bools, which it has as numbers.

        Args:
            proven: whether it must be known to compute the same of them.
        """
        bools = numbers_of_bools(self.plan.original, args, kwargs)
        is_meant = bools in self.bools if proven else bool(bools)
        return is_meant and self.accepts(*with_numbers(self.plan.original, args, kwargs))

    @property
    def capture(self) -> Capture:
        """What was captured, with what is known of it by now."""
        return replace(self.plan.original, bools=frozenset(self.bools))

    def graphs_among(self, store: Graphs, module: fx.GraphModule) -> StepGraphs:
        """The graphs of this step, among those of the model."""
        stay = {*self.weights, *self.plan.dense.constants}
        fixed = {number for number, node in enumerate(self.split.incremental.inputs) if node in stay}
        return StepGraphs(store, self.incremental, module, fixed, self.plan.axes.lengths)

    @property
    def packed_bytes(self) -> int:
        """What packed copies of its weights take by now."""
        return PACKED.bytes_of(own for own in self.current_weights().values() if isinstance(own, Tensor))

    @property
    def can_pack(self) -> bool:
        """Whether some of its weights are such as can be packed."""
        weights = (own for own in self.current_weights().values() if isinstance(own, Tensor))
        return has_onednn() and any(own.ndim == 2 and can_be_packed(own) for own in weights)

    def current_weight_kinds(self) -> list[Any]:
        return [weight_kind(weight) for weight in self.current_weights().values()]

    def current_weights(self) -> Values:
        # At every call, of all weights: those in one part are most, and taken without a call.
        return {node: own.table[own.name] if own.part is None else own.now() for node, own in self.weights.items()}

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Values:
        """The tensors among the step's arguments."""
        leaves, _ = flattened(*with_numbers(self.plan.original, args, kwargs))
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

    def device(self, values: Values) -> torch.device:
        """Where the step computes."""
        read = (values[node] for node in self.split.incremental.inputs)
        return next(own.device for own in read if isinstance(own, Tensor))

    def allocate(self, device: torch.device) -> list[Tensor]:
        """The caches of one session, in the order of `Split.caches`."""
        # Not as inference tensors: a session may go on outside of inference mode.
        with torch.inference_mode(False):
            return [spec.allocate(device) for spec in self.split.caches]

    def finish(self, values: Values, caches: list[Tensor]) -> list[Any]:
        """Run the epilogue: the results as leaves of what the step returns, maybe caches; None for that of `head`."""
        cached = {spec.value: cache for spec, cache in zip(self.split.caches, caches, strict=True)}
        return list(
            self.split.epilogue.module(*(cached.get(node, values.get(node)) for node in self.split.epilogue.inputs))
        )


def is_coarser(dtype: torch.dtype, other: torch.dtype) -> bool:
    return torch.finfo(dtype).eps > torch.finfo(other).eps


def input_names(model: nn.Module, plan: Plan) -> dict[fx.Node, str]:
    """The argument that each tensor among a step's arguments is, or is in."""
    return dict(zip(plan.inputs, argument_names(getattr(model, plan.dense.step), plan.dense)))


def inputs_of(node: fx.Node, names: Mapping[fx.Node, str]) -> list[str]:
    """The step's arguments that a value is computed from."""
    above = ancestors([node])
    return list(dict.fromkeys(name for own, name in names.items() if own in above))


def token_inputs(plan: Plan, watched: Sequence[Watched]) -> set[fx.Node]:
    """Arguments with a token axis, and those that tokens are made of, as a picture of which a step makes patches.

    Some may be joined to others before: a class's token and those of a picture are one axis. Beside an argument with
    rows of its own, which may be what moves from step to step, they are not known to be what a step changes.
    """
    axes = plan.axes.axes
    parts = {part for axis in plan.axes.token_axes for part in axes.with_parts(axis)}
    found = {node for node in plan.inputs if plan.axes.dims.get(node)}
    shapes = {node: node.meta["val"].shape for node in plan.inputs}
    joined = {
        node
        for node, shape in shapes.items()
        if any(size != 1 and axes.of(node, dim) in parts for dim, size in enumerate(shape))
    }
    if not any(len(shape) > 2 for node, shape in shapes.items() if node not in joined):
        found |= joined
    for own in watched:
        # Of two dimensions it is a vector of each sample, as a time, which was only repeated for its tokens.
        given = [node for node in plan.inputs if len(shapes[node]) > 2 and node in ancestors([own.node])]
        if own.token_dim is not None and len(given) == 1:
            found.add(given[0])
    return found


def value_name(plan: Plan, node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """``'timestep', read by aten.add at blocks.0 (model.py:41)``: where a watched value comes from and goes."""
    given = " and ".join(f"{name!r}" for name in inputs_of(node, names)) or f"{node.name!r}"
    inside = [user for user in node.users if not plan.region.is_before(user)]
    return given + (f", read by {describe(inside[0])}" if inside else "")


def allowed(program: Program, own: Watched, tolerance: Mapping[str, float]) -> float | None:
    """How far a value may move: the most that is said of an argument that it is computed from. Ids move or do not."""
    given = inputs_of(own.node, program.input_names)
    most = max((tolerance[name] for name in given if name in tolerance), default=None)
    return most if most is None or most == math.inf or reader_of_several_ids(program, own) is None else None


def reader_of_several_ids(program: Program, own: Watched) -> fx.Node | None:
    """The operator for which a value holds ids, one for each token; None where it is numbers, or one for a sample.

    Of one for a sample, a timestep by which a row of a table is looked up is known by its values to be near another.
    """
    dims = program.plan.axes.dims
    given = [node for node in program.input_names if node in ancestors([own.node])]
    is_several = any(dims.get(node) or any(size != 1 for size in shape_of(node)[1:]) for node in given)
    return reader_of_ids(own.node) if is_several else None
