"""Signals for refresh policies, computed inside the rewritten step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from ... import ops
from ...checks import called
from ...errors import ArgumentError, PolicyError
from ..analysis.attention import AttentionSite
from ..analysis.layout import Layout
from ..analysis.plan import Plan
from ..graph.operands import operands, shape_of
from .cut import Part
from .parts import CacheSpec, Split
from .scores import Scores, find_scores

aten = torch.ops.aten

RowFunction = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Hooks:
    """Inserts signals into a rewritten step: each method returns the node of one, ``[B, N]``.

    Sites are given as a number of them from the first on, ``"all"``, ``"last"``, or a tuple of module paths.
    """

    split: Split
    plan: Plan

    @property
    def graph(self) -> fx.Graph:
        return self.split.incremental.module.graph

    def attention(self, sites: int | str | tuple[str, ...]) -> fx.Node | None:
        """The attention that queried tokens pay to every key, mean over heads, tokens and ``sites``.

        Before:  y = sdpa(q, k_all, v_all);  return ()
        After:   y = sdpa(q, k_all, v_all);  received = attention_received(q, k_all, samples, rows, queried, scale)
                 return (received,)
        """
        chosen = chosen_sites(sites, self.observable, self.unobservable)
        return self.mean([self.attention_at(site) for site in chosen])

    def value_drift(self, sites: int | str | tuple[str, ...]) -> fx.Node | None:
        """How far the values of active rows are from the cached ones they replace; NaN for the other tokens.

        Before:  v_all = update_cache(v_cache, v, ...)
        After:   drift = row_drift(v, read_rows(v_cache, ...));  v_all = update_cache(v_cache, v, ...)
        """
        found = []
        for site in chosen_sites(sites, self.cached):
            update = self.update_of(site.v)
            with self.graph.inserting_before(update):
                drift = self.call(ops.row_drift, *self.now_and_before(update))
            found.append(self.on_tokens(drift, update))
        return self.mean(found)

    def rows(self, path: str, tensor: str, function: RowFunction) -> fx.Node | None:
        """``function(now, before)`` of the active rows of one tensor of the site at ``path``; NaN for other tokens.

        What it reads must not be `Split.read_only`.
        """
        (site,) = chosen_sites((path,), self.cached)
        function = one_number_a_row(function)
        if tensor in ("k", "v"):
            update = self.update_of(getattr(site, tensor))
            with self.graph.inserting_before(update):
                return self.on_tokens(self.call(function, *self.now_and_before(update)), update)
        node = site.q if tensor == "q" else site.node
        layout, rows = self.plan.region.layouts[node], self.plan.region.rows[node]
        update = self.update_of(site.v)
        if rows.streams != self.plan.region.rows[site.v].streams or not layout.is_plain:
            raise ArgumentError(f"{tensor} of {path} has no rows of the site's keys to be measured")
        now = self.call(ops.as_rows, self.split.copies[node], layout.batch_dim, layout.token_dim)
        return self.on_tokens(self.call(function, now, None), update)

    def result(self, function: RowFunction) -> fx.Node | None:
        """``function(now, before)`` of the rows of the first result of numbers that are computed; NaN for others.

        Before:  logits = update_cache(logits_cache, rows, ...)
        After:   confidence = function(rows, None);  logits = update_cache(logits_cache, rows, ...)
        """
        for spec in self.split.caches:
            if spec.role == "result" and spec.dtype.is_floating_point:
                update = next(node for node in self.graph.nodes if writes(node, spec))
                _, rows, _, _, batch_dim, token_dim = update.args
                with self.graph.inserting_before(update):
                    now = self.call(ops.as_rows, rows, batch_dim, token_dim)
                    return self.on_tokens(self.call(one_number_a_row(function), now, None), update)
        return None

    # ---------------------------------------------------------------------------------------------------- sites

    @property
    def observable(self) -> dict[str, AttentionSite]:
        """Sites whose scores are at hand: queries are active tokens, and keys are tokens."""
        return {path: site for path, site in self.named.items() if isinstance(self.scores(site), Scores)}

    @property
    def unobservable(self) -> dict[str, str]:
        """Why the attention of the other sites cannot be observed."""
        found = {path: self.scores(site) for path, site in self.named.items()}
        return {path: why for path, why in found.items() if isinstance(why, str)}

    def scores(self, site: AttentionSite) -> Scores | str:
        return find_scores(site, self.plan, self.split.copies)

    @property
    def cached(self) -> dict[str, AttentionSite]:
        """Sites whose keys and values are rows with caches."""
        caches = {spec.value for spec in self.split.caches}
        region = self.plan.region
        return {
            path: site
            for path, site in self.named.items()
            if region.unrepeated(site.v) in caches and region.unrepeated(site.k) in caches
        }

    @property
    def named(self) -> dict[str, AttentionSite]:
        """Sites of the region that mix tokens, by module path; a second call of a shared layer is ``path#2``."""
        found: dict[str, AttentionSite] = {}
        calls: dict[str, int] = {}
        for site in self.plan.sites:
            calls[site.path] = calls.get(site.path, 0) + 1
            name = site.path if calls[site.path] == 1 else f"{site.path}#{calls[site.path]}"
            is_inside = site.node in self.split.copies and site.node in self.plan.region.rows
            axes = self.plan.axes
            has_tokens = site.key_dim in axes.dims.get(site.k, ()) or axes.joined_parts(site.k, site.key_dim)
            if is_inside and has_tokens:
                found[name] = site
        return found

    def attention_at(self, site: AttentionSite) -> fx.Node:
        """The signal of one site, from its copy in the rewritten graph."""
        scores = self.scores(site)
        assert isinstance(scores, Scores)
        attention, samples = self.split.copies[site.node], next(iter(self.graph.nodes))
        layout = scores.layout
        # At once, so that queries and weights are not kept for later.
        with self.graph.inserting_before(attention.next):
            asked = (samples, *self.asked(site.weights or site.node))
            if site.weights is not None:
                weights = self.cut(self.split.copies[site.weights], layout)
                dims = (layout.batch_dim, layout.token_dim, scores.key_dim)
                return self.padded(self.call(ops.weights_received, weights, *asked, *dims), site)
            # Those of the copy: where only some results are read, its queries are fewer than those of ``site.q``.
            q, k, _, *given = operands(attention)
            key, mask, groups = k, given[0] if given else None, scores.groups
            if any(count > 1 for count in layout.joined):
                if groups != 1:
                    key, groups = self.call(torch.repeat_interleave, key, groups, -3), 1
                key, mask = self.beside(key, mask, layout, int(shape_of(site.k)[-2]))
            asked_of = (self.tokens_last(self.cut(q, layout), layout), key, *asked)
            received = self.call(ops.attention_received, *asked_of, site.scale, mask, layout.batch_dim, groups)
            return self.padded(received, site)

    def beside(
        self, key: fx.Node | None, mask: fx.Node | None, layout: Layout, keys: int
    ) -> tuple[fx.Node, fx.Node | None]:
        """The keys and the mask of queries whose dimensions are cut as in ``layout``, each query with all its keys.

        What shares a dimension with the queries' tokens, as windows do where one attention has them all, is one of
        those that queries have beside.
        """
        *outer, rows, channels = layout.factors
        key = self.call(ops.cut_dims, key, (*outer, (*[1] * (len(rows) - 1), keys), channels))
        if mask is None:
            return key, None
        token = layout.token_dim - len(layout.shape) + 1 + len(rows)
        active = [-1 if number == token else size for number, size in enumerate(rows)]
        return key, self.tokens_last(self.call(ops.cut_dims, mask, (*outer, active, (keys,))), layout)

    def tokens_last(self, value: fx.Node, layout: Layout) -> fx.Node:
        """Rows cut as in ``layout`` with their tokens next to what each row holds."""
        dim = layout.token_dim - len(layout.shape)
        return value if dim == -2 else self.call(torch.movedim, value, dim, -2)

    def cut(self, rows: fx.Node | None, layout: Layout) -> fx.Node:
        """Rows with samples in a dimension of their own."""
        assert rows is not None
        if layout.is_plain:
            return rows
        shape = [-1 if dim == layout.token_dim else size for dim, size in enumerate(layout.shape)]
        return self.call(aten.reshape.default, rows, shape)

    def asked(self, node: fx.Node) -> tuple[fx.Node, fx.Node]:
        """Numbers of the queried among the rows of ``node``, and which of these are queried."""
        streams, split = self.plan.region.rows[node].streams, self.split
        active, read, rows, queried = (
            [own[number] for number in streams] for own in (split.active, split.read, split.rows, split.queried)
        )
        among = active
        if node in split.read_only:
            among, rows = read, [self.call(ops.numbers_among, *pair) for pair in zip(rows, read)]
        if len(streams) == 1:
            return rows[0], queried[0]
        return self.call(ops.join_rows, rows, among), self.call(aten.cat.default, queried, 1)

    # ---------------------------------------------------------------------------------------------------- graph

    def call(self, target: Callable, *args: Any) -> fx.Node:
        return self.graph.call_function(target, args)

    def update_of(self, value: fx.Node) -> fx.Node:
        """The node that writes the rows of a key or value into its cache."""
        value = self.plan.region.unrepeated(value)
        spec = next(spec for spec in self.split.caches if spec.value is value)
        return next(node for node in self.graph.nodes if writes(node, spec))

    def spec_of(self, update: fx.Node) -> CacheSpec:
        """The cache that ``update`` writes."""
        return next(spec for spec in self.split.caches if writes(update, spec))

    def now_and_before(self, update: fx.Node) -> tuple[fx.Node, fx.Node]:
        """The rows that ``update`` writes and those that they replace, ``[B, A, F]``."""
        cache, rows, samples, active, batch_dim, token_dim = update.args
        before = self.call(ops.gather_active, cache, samples, active, batch_dim, token_dim)
        spec = self.spec_of(update)
        if spec.rounded_to is not None:
            before = self.call(aten.to.dtype, before, spec.value.meta["val"].dtype)
        return self.call(ops.as_rows, rows, batch_dim, token_dim), self.call(ops.as_rows, before, batch_dim, token_dim)

    def on_tokens(self, rows: fx.Node, update: fx.Node) -> fx.Node:
        """``[B, A]`` of the rows that ``update`` writes as ``[B, N]`` of all tokens, NaN for those without one."""
        spec = self.spec_of(update)
        start = self.plan.axes.start(self.plan.region.rows[spec.value].streams)
        return self.call(ops.spread_rows, rows, update.args[3], start, self.plan.axes.length)

    def padded(self, received: fx.Node, site: AttentionSite) -> fx.Node:
        """A signal of the keys of one stream as one of all tokens."""
        axes = self.plan.axes
        joined = [own for own in axes.joined_parts(site.k, site.key_dim) if own[0] in axes.token_axes]
        if joined:
            # Attention to what was joined to the tokens' keys is none to a token.
            ((axis, first, length),) = joined
            received = self.call(aten.slice.Tensor, received, 1, first, first + length)
            start = axes.start_of(axis)
        else:
            parts = axes.axes.parts(site.k, site.key_dim, axes.token_axes)
            ((number, axis),) = [(number, own) for number, (own, _) in enumerate(parts) if own in axes.token_axes]
            sizes = [size for _, size in parts]
            if len(sizes) > 1:
                # A token stands at several keys, such as those of every window.
                received = self.call(aten.reshape.default, received, [-1, *sizes])
                beside = [own + 1 for own in range(len(sizes)) if own != number]
                received = self.call(aten.sum.dim_IntList, received, beside)
            start, length = axes.start_of(axis), sizes[number]
        end = axes.length - start - length
        return received if start == end == 0 else self.call(aten.constant_pad_nd.default, received, [start, end])

    def mean(self, found: Sequence[fx.Node]) -> fx.Node | None:
        if not found:
            return None
        total = found[0]
        for other in found[1:]:
            total = self.call(aten.add.Tensor, total, other)
        return self.call(aten.div.Scalar, total, len(found))


def insert_hooks(
    split: Split, plan: Plan, signals: Sequence[Callable[[Hooks], fx.Node | None]]
) -> tuple[Split, list[int]]:
    """The rewritten step with signals for its results, and the numbers of those that it has."""
    if not signals:
        return split, []
    hooks = Hooks(split, plan)
    output = next(node for node in hooks.graph.nodes if node.op == "output")
    with hooks.graph.inserting_before(output):
        nodes = [signal(hooks) for signal in signals]
    found = {number: node for number, node in enumerate(nodes) if node is not None}
    output.args = (tuple(found.values()),)
    split.incremental.module.recompile()
    incremental = Part(split.incremental.module, split.incremental.inputs, tuple(found.values()))
    return replace(split, incremental=incremental, unobservable=hooks.unobservable), list(found)


def one_number_a_row(function: RowFunction) -> RowFunction:
    """A user's function as one of a graph, which writes it by a name that a `functools.partial` does not have.

    Raises:
        PolicyError: at run time, the function returned something else than ``[B, A]``.
    """

    def row_signal(now: Tensor, before: Tensor | None) -> Tensor:
        found = called("a RowSignal's function, with rows now and before,", function, now, before)
        if not isinstance(found, Tensor) or found.shape != now.shape[:2]:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise PolicyError(f"a RowSignal's function must return one number a row, {tuple(now.shape[:2])}, got {got}")
        return found

    return row_signal


def writes(node: fx.Node, spec: CacheSpec) -> bool:
    """Whether ``node`` writes the cache ``spec``."""
    return node.target is ops.update_cache and getattr(node.args[0], "name", None) == spec.name


def chosen_sites(
    sites: int | str | tuple[str, ...], among: dict[str, AttentionSite], others: Mapping[str, str] | None = None
) -> list[AttentionSite]:
    """The sites that ``sites`` means.

    Args:
        others: sites that cannot be chosen, and why.

    Raises:
        ArgumentError: there is no site at a path; the message lists those that exist.
    """
    if isinstance(sites, int):
        return list(among.values())[:sites]
    if sites in ("all", "last"):
        return list(among.values())[-1 if sites == "last" else None :]
    paths = (sites,) if isinstance(sites, str) else sites
    for path in paths:
        if others and path in others:
            raise ArgumentError(f"the attention of {path!r} cannot be observed: {others[path]}")
        if path not in among:
            raise ArgumentError(f"no attention site {path!r} to measure; there are {', '.join(among) or 'none'}")
    return [among[path] for path in paths]
