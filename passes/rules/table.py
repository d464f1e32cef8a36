"""What every operator does to dimensions: one line an operator where a line can say it.

A rule says which operand dimension each output dimension is, and along which dimensions an output element reads more
than its own position (it *mixes* them). A line of the table gives one pattern an operand::

    "... c, o c, o? -> ... o"          linear: a row of the output reads the same row of the input; c is summed away
    "... c -> ... c | mixes c"         an output element reads the whole of c

``...`` stands for any dimensions, broadcast from the right; ``?`` marks an operand that may be missing. A dimension
that is not in the output is mixed without saying so. An operator without a rule mixes everything.

A dimension that is in the output and not mixed is *token-wise*: ``op(x[rows]) == op(x)[rows]``, where every operand
that has the rows is cut alike. So an operator that counts positions (``tril``, ``cumsum``, ``scatter``) mixes.
`perturb.check_rule` checks what a rule says.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from ..graph.opaque import OPAQUE
from ..graph.operands import operands, same_size, shape_of
from .dim_map import DimMap, Rule, finished
from .functions import (
    along,
    convolution,
    diagonal,
    dropout,
    einsum,
    except_along,
    gathered,
    index_selected,
    indexed,
    matmul,
    mixes_everything,
    moved,
    normalized,
    padded,
    permuted,
    pointwise,
    pooled,
    reads_nothing,
    reduced,
    reversed_,
    rows_alone,
    searched,
    select_written,
    selected,
    slice_written,
    sliced,
    softmax_attention,
    squeezed,
    stacked,
    transposed,
    unsqueezed,
    written_along,
    written_at,
)
from .notation import pattern
from .reshapes import reshape

aten = torch.ops.aten


def taken(node: fx.Node) -> DimMap:
    """One of an operator's values: what the operator kept in place, where the value has it too.

    ``native_group_norm(x [B, C, H, W])`` gives means ``[B, groups]`` beside the normalized x: no rows in common.
    """
    (values,) = operands(node)
    assert values is not None
    first, shape = shape_of(values), shape_of(node)
    dims = set(dim_map(values).output.values()) if len(first) == len(shape) else set()
    return finished(node, {(0, dim): dim for dim in dims if same_size(first[dim], shape[dim])})


# ---------------------------------------------------------------------------------------------------- the table

UNTAGGED = (
    aten._to_copy.default,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.clone.default,
    aten.contiguous.default,
    aten.copy.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
    aten.full_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.masked_fill.Tensor,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.hardswish.default,
    aten.log_sigmoid.default,
    aten._prelu_kernel.default,
    aten.floor_divide.default,
    aten.rsub.Tensor,
    aten.isclose.default,
    aten.complex.default,
    aten.polar.default,
    aten.real.default,
    aten.imag.default,
    aten._conj.default,
    aten.resolve_conj.default,
)
"""Pointwise without PyTorch's tag for it."""

FACTORIES = (
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.empty.memory_format,
    aten.empty_permuted.default,
    aten.scalar_tensor.default,
    aten.eye.default,
    aten.linspace.default,
    aten.tril_indices.default,
    aten.triu_indices.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
"""Tensors made of sizes and numbers."""

RULES: dict[Any, Rule] = {
    # contractions
    aten.linear.default: pattern("... c, o c, o? -> ... o"),
    aten.mm.default: pattern("n c, c o -> n o"),
    aten.mv.default: pattern("n c, c -> n"),
    aten.dot.default: pattern("c, c -> "),
    aten.bmm.default: pattern("b n c, b c m -> b n m"),
    aten.addmm.default: pattern("n m, n c, c m -> n m"),
    aten.addmv.default: pattern("n, n c, c -> n"),
    aten.baddbmm.default: pattern("b n m, b n c, b c m -> b n m"),
    aten.matmul.default: matmul,
    aten.einsum.default: einsum,
    aten.scaled_dot_product_attention.default: softmax_attention,
    aten._cdist_forward.default: pattern("... n c, ... m c -> ... n m"),
    aten.embedding.default: pattern("v c, ... -> ... c"),
    aten.bucketize.Tensor: pattern("..., s -> ..."),
    aten.searchsorted.Tensor: searched,
    # norms
    aten.layer_norm.default: normalized,
    aten.native_layer_norm.default: normalized,
    aten.rms_norm.default: normalized,
    aten._fused_rms_norm.default: normalized,
    aten.group_norm.default: pattern("b c ..., c?, c? -> b c ... | mixes c ..."),
    aten.native_group_norm.default: pattern("b c ..., c?, c? -> b c ... | mixes b c ..."),
    aten._native_batch_norm_legit_no_training.default: pattern("b c ..., c?, c?, c, c -> b c ..."),
    # along dimensions that stay in place
    aten.softmax.int: along(),
    aten._softmax.default: along(),
    aten._safe_softmax.default: along(),
    aten.log_softmax.int: along(),
    aten._log_softmax.default: along(),
    aten.cumsum.default: along(),
    aten.cumprod.default: along(),
    aten.cummax.default: along(),
    aten.cummin.default: along(),
    aten.logcumsumexp.default: along(),
    aten.linalg_cross.default: along(),
    aten.tril.default: pattern("... n m -> ... n m | mixes n m"),
    aten.triu.default: pattern("... n m -> ... n m | mixes n m"),
    # along dimensions that go
    aten.sum.dim_IntList: reduced,
    aten.nansum.default: reduced,
    aten.aminmax.default: reduced,
    aten.mean.dim: reduced,
    aten.prod.dim_int: reduced,
    aten.amax.default: reduced,
    aten.amin.default: reduced,
    aten.max.dim: reduced,
    aten.min.dim: reduced,
    aten.median.dim: reduced,
    aten.kthvalue.default: reduced,
    aten.argmax.default: reduced,
    aten.argmin.default: reduced,
    aten.any.dim: reduced,
    aten.any.dims: reduced,
    aten.all.dim: reduced,
    aten.all.dims: reduced,
    aten.var.dim: reduced,
    aten.var.correction: reduced,
    aten.var_mean.correction: reduced,
    aten.std.dim: reduced,
    aten.std.correction: reduced,
    aten.std_mean.correction: reduced,
    aten.logsumexp.default: reduced,
    aten.linalg_vector_norm.default: reduced,
    aten.norm.ScalarOpt_dim: reduced,
    aten.sum.default: mixes_everything,
    aten.mean.default: mixes_everything,
    aten.prod.default: mixes_everything,
    aten.max.default: mixes_everything,
    aten.min.default: mixes_everything,
    aten.any.default: mixes_everything,
    aten.all.default: mixes_everything,
    aten.norm.Scalar: mixes_everything,
    # positions after these are no longer those before
    aten.sort.default: except_along(),
    aten.sort.stable: except_along(),
    aten.argsort.default: except_along(),
    aten.argsort.stable: except_along(),
    aten.topk.default: except_along(),
    aten.flip.default: except_along("dims"),
    aten.roll.default: except_along("dims"),
    aten._fft_c2c.default: except_along(),
    aten._fft_r2c.default: except_along(),
    aten._fft_c2r.default: except_along(),
    aten.glu.default: except_along(),
    # shapes
    aten.view.default: reshape,
    aten.reshape.default: reshape,
    aten._unsafe_view.default: reshape,
    aten.permute.default: moved(permuted),
    aten.transpose.int: moved(transposed),
    aten.t.default: moved(reversed_),
    aten.unsqueeze.default: moved(unsqueezed),
    aten.squeeze.dim: moved(squeezed),
    aten.squeeze.dims: moved(squeezed),
    aten.select.int: moved(selected),
    aten.unbind.int: moved(selected),
    aten.diagonal.default: moved(diagonal),
    aten.view_as_real.default: pattern("... -> ... r"),
    aten.view_as_complex.default: pattern("... r -> ..."),
    aten.expand.default: pointwise,
    aten.repeat.default: pointwise,
    aten.slice.Tensor: sliced,
    aten.cat.default: except_along(),
    aten.stack.default: stacked,
    aten.split.Tensor: except_along(),
    aten.split_with_sizes.default: except_along(),
    aten.unfold.default: except_along("dimension"),
    # reading and writing by position
    aten.gather.default: gathered,
    aten.index_select.default: index_selected,
    aten.index.Tensor: indexed,
    aten._unsafe_index.Tensor: indexed,
    aten.index_put.default: written_at,
    aten.scatter.src: written_along,
    aten.scatter.value: written_along,
    aten.scatter_add.default: written_along,
    aten.scatter_reduce.two: written_along,
    aten.index_add.default: written_along,
    aten.index_copy.default: written_along,
    aten.slice_scatter.default: slice_written,
    aten.select_scatter.default: select_written,
    # images
    aten.convolution.default: convolution,
    aten.avg_pool1d.default: pooled(1),
    aten.avg_pool2d.default: pooled(2),
    aten.avg_pool3d.default: pooled(3),
    aten.max_pool2d_with_indices.default: pooled(2),
    aten.max_pool3d_with_indices.default: pooled(3),
    aten.adaptive_avg_pool1d.default: pattern("... n -> ... m"),
    aten._adaptive_avg_pool2d.default: pattern("... h w -> ... y x"),
    aten._adaptive_avg_pool3d.default: pattern("... d h w -> ... z y x"),
    aten.adaptive_max_pool2d.default: pattern("... h w -> ... y x"),
    aten.upsample_nearest1d.vec: pattern("b c n -> b c m"),
    aten.upsample_nearest2d.vec: pattern("b c h w -> b c y x"),
    aten.upsample_nearest2d.default: pattern("b c h w -> b c y x"),
    aten.upsample_bilinear2d.vec: pattern("b c h w -> b c y x"),
    aten.upsample_bicubic2d.vec: pattern("b c h w -> b c y x"),
    aten.grid_sampler_2d.default: pattern("b c h w, b y x t -> b c y x"),
    aten.pixel_shuffle.default: pattern("... c h w -> ... d y x"),
    aten.pixel_unshuffle.default: pattern("... c h w -> ... d y x"),
    aten.reflection_pad1d.default: pattern("... n -> ... m"),
    aten.reflection_pad2d.default: pattern("... h w -> ... y x"),
    aten.replication_pad1d.default: pattern("... n -> ... m"),
    aten.replication_pad2d.default: pattern("... h w -> ... y x"),
    aten.constant_pad_nd.default: padded,
    # pointwise without PyTorch's tag
    **dict.fromkeys(UNTAGGED, pointwise),
    aten.dropout.default: dropout,
    aten.native_dropout.default: dropout,
    # children that are called as they are
    OPAQUE: rows_alone,
    # new tensors
    **dict.fromkeys(FACTORIES, reads_nothing),
}
# `linear` keeps "n" inside its "...". `native_group_norm` is told the number of samples, so they are no rows.


def dim_map(node: fx.Node) -> DimMap:
    """What ``node`` does to dimensions; an operator without a rule mixes everything."""
    if node.target is operator.getitem:
        return taken(node)
    if node.op != "call_function" or not hasattr(node.target, "_schema"):
        return DimMap()
    rule = RULES.get(node.target)
    if rule is None:
        rule = pointwise if is_pointwise(node.target) else mixes_everything
    return rule(node)


def has_rule(node: fx.Node) -> bool:
    """Whether the operator's effect on dimensions is known, rather than assumed to be mixing everything."""
    return node.target in RULES or is_pointwise(node.target)


def is_pointwise(target: Any) -> bool:
    """Whether PyTorch says so; an operator that draws random numbers draws others for other rows."""
    tags = getattr(target, "tags", ())
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags
