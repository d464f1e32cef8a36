"""Undo the dropping of masked tokens: run on the dense token axis and hide what was dropped from attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from ...errors import UnsupportedModelError
from ..analysis.attention import CONTRACTIONS, FUSED, SOFTMAX
from ..analysis.kept import Kept, mask_of, match_kept, same_value
from ..capture.captured import Capture
from ..graph.operands import argument, expression, operands, same_size, shape_of
from ..graph.source import describe
from ..rules.reshapes import RESHAPES
from ..rules.table import dim_map

aten = torch.ops.aten

GIVEN_SIZES = (*RESHAPES, aten.expand.default)
SCALES = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
"""Pointwise operators that leave zero where it was."""


@dataclass(frozen=True)
class Packed:
    """A capture whose tokens all have stable positions.

    Attributes:
        visible: bool ``[B, N]``, the tokens that were not dropped, outside of which nothing is computed; None where
            nothing drops tokens, and where others are put in the place of those that were dropped.
    """

    capture: Capture
    visible: fx.Node | None


def pack(capture: Capture) -> Packed:
    """Replace ``pack ; f ; unpack`` by ``f`` with invisible keys masked.

    Before:  r, c = nonzero(mask);  x = view(index(dense, [r, c]), [B, K, D]);  y = sdpa(f(x), g(x), h(x))
             out = y
    After:   visible = ne(mask, 0)
             y = sdpa(f(dense), g(dense), h(dense), visible[:, None, None, :])
             out = view(index(y, [r, c]), [B, K, D])

    The two are equal where only token-wise operators and attention stand between. Every token keeps its position, so
    caches do not move when a token becomes visible.

    Raises:
        UnsupportedModelError: another operator mixes the kept tokens, or two masks drop tokens of one graph.
    """
    found = [kept for node in capture.graph_module.graph.nodes if (kept := match_kept(node)) is not None]
    if not found:
        return Packed(capture, None)
    other = next((kept for kept in found if not same_value(kept.mask, found[0].mask)), None)
    if other is not None:
        raise UnsupportedModelError(
            f"{describe(other.kept)} keeps tokens by another mask than {describe(found[0].kept)}; marche_fx follows "
            "one visibility mask a step. Drop tokens once, or pass the smaller sequence as the step's input."
        )
    return Densifier(capture, found).run()


class Densifier:
    """Copies a graph node by node; values that were packed ``[B, K, ...]`` become dense ``[B, N, ...]``."""

    def __init__(self, capture: Capture, found: list[Kept]) -> None:
        self.capture = capture
        self.kept = {kept.kept: kept for kept in found}
        self.first = found[0]
        self.length = shape_of(self.first.mask)[1]
        self.kept_length = expression(shape_of(self.first.kept)[1])
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, Any] = {}
        self.packed: dict[fx.Node, frozenset[int]] = {}
        """Nodes of the old graph that have the kept axis, and which dimensions it is: two where kept meets kept."""
        self.masked: set[fx.Node] = set()
        """Nodes of the old graph that are zero at invisible tokens of their mixed axis: masked attention weights."""
        self.visible: fx.Node | None = None
        self.is_whole_again = False
        """Whether something has rows for the dropped tokens too."""
        self.views: dict[tuple[int, int], fx.Node] = {}

    def run(self) -> Packed:
        for node in self.capture.graph_module.graph.nodes:
            self.copies[node] = self.copy(node)
            if node is self.first.mask:
                self.visible = self.call(aten.ne.Scalar, (self.copies[node], 0), like=node, name="visible")
        self.graph.eliminate_dead_code()
        module = fx.GraphModule(self.capture.graph_module, self.graph)
        capture = replace(
            self.capture,
            graph_module=module,
            weights={self.copies[node]: name for node, name in self.capture.weights.items()},
            constants={self.copies[node]: tensor for node, tensor in self.capture.constants.items()},
            inputs=tuple(
                leaf if leaf.node is None else replace(leaf, node=self.copies[leaf.node])
                for leaf in self.capture.inputs
            ),
        )
        return Packed(capture, None if self.is_whole_again else self.visible)

    def copy(self, node: fx.Node) -> Any:
        if node in self.kept:
            self.packed[node] = frozenset({1})
            return self.copies[self.kept[node].dense]
        if node.op == "output":
            return self.graph.output(fx.map_arg(node.args[0], self.packed_again))
        if self.puts_back(node):
            return self.put_back(node)
        if node.target in RESHAPES and node.users and all(self.puts_back(user) for user in node.users):
            return None
        if node.op != "call_function" or not any(operand in self.packed for operand in node.all_input_nodes):
            return self.graph.node_copy(node, self.copies.__getitem__)
        if isinstance(node.meta.get("val"), torch.SymInt):
            return self.kept_size(node)
        return self.densify(node)

    def kept_size(self, node: fx.Node) -> fx.Node:
        """A size of a packed value, read elsewhere: dense values do not have it."""
        for earlier in self.copies:
            value = earlier.meta.get("val")
            if isinstance(value, torch.SymInt) and expression(value) == expression(node.meta["val"]):
                return self.copies[earlier]
        raise UnsupportedModelError(f"{describe(node)} reads how many tokens {describe(self.first.kept)} kept.")

    def densify(self, node: fx.Node) -> fx.Node:
        self.follow(node)
        given: Any = fx.map_arg((node.args, node.kwargs), self.dense_argument(node))
        args, kwargs = given
        if node.target in FUSED and operands(node)[1] in self.packed:
            args, kwargs = self.hide_keys(node, args, kwargs)
        elif node.target in SOFTMAX and node in self.masked:
            args = (self.hide_scores(node, args[0]), *args[1:])
        return self.call(node.target, args, kwargs, like=node, name=node.name)  # type: ignore[arg-type]

    def follow(self, node: fx.Node) -> None:
        """Find the kept axis in ``node``; refuse an operator that mixes kept tokens other than in attention."""
        own, tensors = dim_map(node), operands(node)
        kept = set()
        for index, operand in enumerate(tensors):
            if operand is None:
                continue
            if operand not in self.packed and any(expression(size) == self.kept_length for size in shape_of(operand)):
                raise UnsupportedModelError(
                    f"{describe(node)} reads {describe(operand)}, made for as many tokens as "
                    f"{describe(self.first.kept)} kept. Make it for all tokens and drop from it by the same mask."
                )
            for dim in self.packed.get(operand, ()):
                if (index, dim) in own.output:
                    kept.add(own.output[index, dim])
                if (index, dim) in own.mixed and not self.is_hidden(node, index):
                    raise UnsupportedModelError(
                        f"{describe(node)} mixes tokens that {describe(self.first.kept)} kept, other than in "
                        "attention; it would see the dropped tokens too. Move it before the dropping of tokens."
                    )
                if (index, dim) in own.mixed and node.target in SOFTMAX:
                    self.masked.add(node)
        if kept:
            self.packed[node] = frozenset(kept)
        adds = torch.Tag.pointwise in getattr(node.target, "tags", ()) and node.target not in SCALES
        if not adds and not own.mixed and any(operand in self.masked for operand in tensors):
            self.masked.add(node)

    def is_hidden(self, node: fx.Node, index: int) -> bool:
        """Whether ``node`` will not see the dropped tokens of an operand that it mixes."""
        return (
            (node.target in FUSED and index in (1, 2))
            or node.target in SOFTMAX
            or (node.target in CONTRACTIONS and any(other in self.masked for other in operands(node)))
        )

    def dense_argument(self, user: fx.Node) -> Callable[[fx.Node], Any]:
        """What an argument of ``user`` becomes: the kept length, where a shape is given, the dense one."""

        def argument_of_user(node: fx.Node) -> Any:
            size = node.meta.get("val")
            if isinstance(size, torch.SymInt) and user.target in GIVEN_SIZES and expression(size) == self.kept_length:
                return self.length
            return self.copies[node]

        return argument_of_user

    def hide_keys(self, node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Arguments of a fused attention with the visibility of keys in its mask."""
        if argument(node, "is_causal"):
            raise UnsupportedModelError(
                f"{describe(node)} is causal among tokens that were kept by a mask; pass an explicit attention mask."
            )
        q, k, v = args[:3]
        mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
        own = self.visible_at(node, rank=len(shape_of(node)), dim=-1)
        if mask is not None and mask.meta["val"].dtype is torch.bool:
            own = self.call(aten.logical_and.default, (own, mask), like=node)
        elif mask is not None:
            own = self.call(aten.where.ScalarOther, (own, mask, float("-inf")), like=node)
        options = {name: value for name, value in kwargs.items() if name != "attn_mask"}
        return (q, k, v, own, *args[4:]), options

    def hide_scores(self, node: fx.Node, scores: fx.Node) -> fx.Node:
        visible = self.visible_at(node, rank=len(shape_of(node)), dim=argument(node, "dim"))
        return self.call(aten.where.ScalarOther, (visible, scores, float("-inf")), like=node)

    def visible_at(self, node: fx.Node, rank: int, dim: int) -> fx.Node:
        """``visible`` with samples first and its tokens at ``dim`` of so many dimensions."""
        key = (rank, dim % rank)
        samples = shape_of(self.first.mask)[0]
        if not same_size(shape_of(node)[0], samples):
            raise UnsupportedModelError(
                f"{describe(node)} attends to tokens that {describe(self.first.kept)} kept, but its first dimension "
                f"holds {shape_of(node)[0]} of {samples} samples; keep samples and heads apart, [B, H, N, d]."
            )
        if key not in self.views:
            shape = [1] * rank
            shape[0], shape[dim] = samples, self.length
            self.views[key] = self.call(aten.view.default, (self.visible, shape), like=node)
        return self.views[key]

    def puts_back(self, node: fx.Node) -> bool:
        """Whether ``node`` writes packed rows of this graph where the mask says."""
        if node.target is not aten.index_put.default:
            return False
        _, indices, values = node.args[:3]
        mask = mask_of(indices)
        rows = values
        while isinstance(rows, fx.Node) and rows.target in RESHAPES and rows not in self.packed:
            rows = rows.args[0]
        return mask is not None and same_value(mask, self.first.mask) and rows in self.packed

    def put_back(self, node: fx.Node) -> fx.Node:
        """``where(visible, dense, padded)``."""
        self.is_whole_again = True
        padded, rows = node.args[0], node.args[2]
        while isinstance(rows, fx.Node) and rows not in self.packed:
            rows = rows.args[0]
        assert isinstance(padded, fx.Node)
        assert isinstance(rows, fx.Node)
        rank = len(shape_of(node))
        visible = self.visible_at(node, rank, dim=1)
        return self.call(aten.where.self, (visible, self.copies[rows], self.copies[padded]), like=node)

    def packed_again(self, node: fx.Node) -> fx.Node:
        """A result in the form the step promised: only the visible tokens."""
        if node not in self.packed:
            return self.copies[node]
        if self.packed[node] != {1}:
            raise UnsupportedModelError(
                f"{describe(node)} returns kept tokens in dimensions {sorted(self.packed[node])}; marche_fx expects "
                "[B, K, ...]."
            )
        indices = [self.copies[index] for index in self.first.indices]
        index = self.call(aten.index.Tensor, (self.copies[node], indices), like=node)
        shape = shape_of(node)
        result = self.graph.create_node("call_function", RESHAPES[0], (index, [shape[0], -1, *shape[2:]]), name="kept")
        result.meta = dict(node.meta)
        return result

    def call(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        *,
        like: fx.Node,
        name: str | None = None,
    ) -> fx.Node:
        """A new node with its value's fake, standing where ``like`` stood in the user's code."""
        name = name or target.__name__.split(".")[0]
        node = self.graph.create_node("call_function", target, args, kwargs or {}, name)
        node.meta = {name: value for name, value in like.meta.items() if name != "val"}
        fakes, options = fx.map_arg((args, kwargs or {}), lambda operand: operand.meta["val"])
        with torch.no_grad(), self.first.dense.meta["val"].fake_mode:
            node.meta["val"] = target(*fakes, **options)
        return node
