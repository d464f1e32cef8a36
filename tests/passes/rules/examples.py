"""An example call or more for every operator that has a rule, at any sizes."""

from __future__ import annotations

from typing import Any

import torch

from marche_fx.passes.graph.opaque import OPAQUE
from marche_fx.passes.rules.table import FACTORIES

from .calls import (
    Examples,
    attentions,
    backwards,
    called,
    chosen,
    convolutions,
    each,
    group_norms,
    ids,
    index_writes,
    indices,
    masks,
    no,
    r,
    reshapes,
    scatters,
    two,
    x,
    z,
)

aten = torch.ops.aten

EXAMPLES: dict[Any, Examples] = {
    OPAQUE: called,
    aten.linear.default: lambda s: [(r(s.b, s.n, s.c), r(s.m, s.c), r(s.m)), (r(s.n, s.c), r(s.m, s.c))],
    aten.mm.default: lambda s: [(r(s.n, s.c), r(s.c, s.m))],
    aten.mv.default: lambda s: [(r(s.n, s.c), r(s.c))],
    aten.dot.default: lambda s: [(r(s.c), r(s.c))],
    aten.addmv.default: lambda s: [(r(s.n), r(s.n, s.c), r(s.c))],
    aten.addmm.default: lambda s: [
        (r(s.m), r(s.n, s.c), r(s.c, s.m)),
        (r(s.n, s.m), r(s.n, s.c), r(s.c, s.m)),
    ],
    aten.bmm.default: lambda s: [(r(s.b, s.n, s.c), r(s.b, s.c, s.m))],
    aten.baddbmm.default: lambda s: [
        (r(s.b, s.n, s.m), r(s.b, s.n, s.c), r(s.b, s.c, s.m)),
        (r(s.m), r(s.b, s.n, s.c), r(s.b, s.c, s.m)),
    ],
    aten.matmul.default: lambda s: [
        (r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.c, s.m)),
        (r(s.b, s.h, s.n, s.c), r(s.c, s.m)),
        (r(s.n, s.c), r(s.b, s.c, s.m)),
        (r(s.b, s.n, s.c), r(s.c)),
        (r(s.c), r(s.b, s.c, s.m)),
    ],
    aten.einsum.default: lambda s: [
        ("bhid,bhjd->bhij", [r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.m, s.c)]),
        ("bihd, bjhd -> bhij", [r(s.b, s.n, s.h, s.c), r(s.b, s.m, s.h, s.c)]),
        ("bhij,bjhd->bihd", [r(s.b, s.h, s.n, s.m), r(s.b, s.m, s.h, s.c)]),
        ("bnc,bn->bc", [r(s.b, s.n, s.c), r(s.b, s.n)]),
        ("...nc,...mc->...nm", [r(s.b, s.h, s.n, s.c), r(s.h, s.m, s.c)]),
        ("n...,nc->...c", [r(s.n, s.b, s.h), r(s.n, s.c)]),
        ("nc,cm", [r(s.n, s.c), r(s.c, s.m)]),
    ],
    aten.scaled_dot_product_attention.default: attentions,
    aten._cdist_forward.default: lambda s: [(r(s.b, s.n, s.c), r(s.b, s.m, s.c), 2.0, None)],
    aten.embedding.default: lambda s: [(r(7, s.c), ids(7, s.b, s.n))],
    aten.bucketize.Tensor: lambda s: [(r(s.b, s.n), r(s.m).sort().values)],
    aten.searchsorted.Tensor: lambda s: [
        (r(s.m).sort().values, r(s.b, s.n)),
        (r(s.b, s.m).sort().values, r(s.b, s.n)),
    ],
    # norms
    aten.layer_norm.default: lambda s: [(r(s.b, s.n, s.c), [s.c], r(s.c), r(s.c)), (r(s.b, s.n, s.c), [s.n, s.c])],
    aten.native_layer_norm.default: lambda s: [
        (r(s.b, s.n, s.c), [s.c], r(s.c), r(s.c), 1e-5),
        (r(s.b, s.n, s.c), [s.n, s.c], None, None, 1e-5),
    ],
    aten.rms_norm.default: lambda s: [(r(s.b, s.n, s.c), [s.c], r(s.c)), (r(s.b, s.n, s.c), [s.c])],
    aten._fused_rms_norm.default: lambda s: [(r(s.b, s.n, s.c), [s.c], r(s.c), 1e-5)],
    aten.group_norm.default: lambda s: [(r(s.b, 2 * s.c, s.n), 2, r(2 * s.c), r(2 * s.c))],
    aten.native_group_norm.default: group_norms,
    aten._native_batch_norm_legit_no_training.default: lambda s: [
        (r(s.b, s.c, s.n), r(s.c), r(s.c), r(s.c), r(s.c).exp(), 0.1, 1e-5),
        (r(s.b, s.c), None, None, r(s.c), r(s.c).exp(), 0.1, 1e-5),
    ],
    # along dimensions that stay in place
    aten.softmax.int: lambda s: [(r(s.b, s.h, s.n, s.m), -1), (r(s.b, s.n, s.c), 1)],
    aten.log_softmax.int: lambda s: [(r(s.b, s.n, s.c), 2)],
    **each((aten._softmax.default, aten._log_softmax.default), lambda s: [(r(s.b, s.n, s.c), -1, False)]),
    aten._safe_softmax.default: lambda s: [(r(s.b, s.n, s.c), -1)],
    **each(
        (
            aten.cumsum.default,
            aten.cumprod.default,
            aten.cummax.default,
            aten.cummin.default,
            aten.logcumsumexp.default,
        ),
        lambda s: [(r(s.b, s.n, s.c), 1), (r(s.b, s.n, s.c), -1)],
    ),
    aten.linalg_cross.default: lambda s: [(r(s.b, s.n, 3), r(s.b, s.n, 3)), (r(3, s.n), r(3, s.n), {"dim": 0})],
    **each((aten.tril.default, aten.triu.default), lambda s: [(r(s.b, s.n, s.n),), (r(s.n, s.m), 1)]),
    # along dimensions that go
    **each(
        (
            aten.sum.dim_IntList,
            aten.mean.dim,
            aten.amax.default,
            aten.amin.default,
            aten.logsumexp.default,
        ),
        lambda s: [(r(s.b, s.n, s.c), [1]), (r(s.b, s.n, s.c), [0, -1]), (r(s.b, s.n, s.c), [-1], True)],
    ),
    **each(
        (
            aten.var.dim,
            aten.var.correction,
            aten.var_mean.correction,
            aten.std.dim,
            aten.std.correction,
            aten.std_mean.correction,
        ),
        lambda s: [
            (r(s.b, s.n, s.c + 1), [-1]),
            (r(s.b, s.n, s.c + 1), None),
            (r(s.b, s.n + 1), [1], {"keepdim": True}),
        ],
    ),
    **each(
        (
            aten.prod.dim_int,
            aten.max.dim,
            aten.min.dim,
            aten.median.dim,
            aten.argmax.default,
            aten.argmin.default,
        ),
        lambda s: [(r(s.b, s.n, s.c), 1), (r(s.b, s.n, s.c), -1, True)],
    ),
    aten.nansum.default: lambda s: [(r(s.b, s.n, s.c), [1]), (r(s.b, s.n, s.c), [0, -1], True)],
    aten.aminmax.default: lambda s: [
        (r(s.b, s.n, s.c), {"dim": 1}),
        (r(s.b, s.n, s.c), {"dim": -1, "keepdim": True}),
        (r(s.b, s.n),),
    ],
    aten.kthvalue.default: lambda s: [(r(s.b, s.n, s.c), 1, -1), (r(s.b, s.n, s.c), 1, 1, True)],
    **each((aten.any.dim, aten.any.dims), lambda s: [(no(s.b, s.n, s.c), 1), (no(s.b, s.n, s.c), -1, True)]),
    **each((aten.all.dim, aten.all.dims), lambda s: [(~no(s.b, s.n, s.c), 1), (~no(s.b, s.n, s.c), -1, True)]),
    aten.any.dims: lambda s: [(no(s.b, s.n, s.c), [0, 1]), (no(s.b, s.n, s.c), [-1], True), (no(s.b, s.n),)],
    aten.all.dims: lambda s: [(~no(s.b, s.n, s.c), [0, 1]), (~no(s.b, s.n, s.c), [-1], True), (~no(s.b, s.n),)],
    aten.linalg_vector_norm.default: lambda s: [(r(s.b, s.n, s.c), 2, [-1]), (r(s.b, s.n, s.c), 1, [1], True)],
    aten.norm.ScalarOpt_dim: lambda s: [(r(s.b, s.n, s.c), 2, [-1]), (r(s.b, s.n, s.c), None, [1], True)],
    **each(
        (
            aten.sum.default,
            aten.mean.default,
            aten.prod.default,
            aten.max.default,
            aten.min.default,
            aten.norm.Scalar,
        ),
        x,
    ),
    **each((aten.any.default, aten.all.default), lambda s: [(chosen(s.b, s.n),)]),
    # positions after these are no longer those before
    **each((aten.sort.default, aten.argsort.default), lambda s: [(r(s.b, s.n, s.c), 1), (r(s.b, s.n),)]),
    **each((aten.sort.stable, aten.argsort.stable), lambda s: [(r(s.b, s.n, s.c), {"stable": True, "dim": 1})]),
    aten.topk.default: lambda s: [(r(s.b, s.n, s.c), 1), (r(s.b, s.n, s.c), s.n, 1)],
    aten.flip.default: lambda s: [(r(s.b, s.n, s.c), [1]), (r(s.b, s.n, s.c), [0, -1])],
    aten.roll.default: lambda s: [(r(s.b, s.n, s.c), [1], [1]), (r(s.b, s.n), [1])],
    aten._fft_c2c.default: lambda s: [(z(s.b, s.n, s.c), [1, 2], 0, True)],
    aten._fft_r2c.default: lambda s: [(r(s.b, s.n, s.c), [1], 0, True), (r(s.b, s.n, s.c), [1], 0, False)],
    aten._fft_c2r.default: lambda s: [(z(s.b, s.n + 1, s.c), [1], 0, 2 * s.n)],
    aten.glu.default: lambda s: [(r(s.b, s.n, 2 * s.c),), (r(s.b, 2 * s.n, s.c), 1)],
    # shapes
    **each((aten.view.default, aten.reshape.default, aten._unsafe_view.default), reshapes),
    aten.permute.default: lambda s: [(r(s.b, s.n, s.h, s.c), [0, 2, -1, 1])],
    aten.transpose.int: lambda s: [(r(s.b, s.n, s.h, s.c), 1, -2), (r(s.n, s.c), 0, 1)],
    aten.t.default: lambda s: [(r(s.n, s.c),), (r(s.n),)],
    aten.unsqueeze.default: lambda s: [(r(s.b, s.n, s.c), 1), (r(s.b, s.n, s.c), -1), (r(s.b, s.n), 0)],
    aten.squeeze.dim: lambda s: [(r(s.b, 1, s.n), 1), (r(s.b, s.n, 1), -1)],
    aten.squeeze.dims: lambda s: [(r(1, s.b, 1, s.n), [0, 2])],
    aten.select.int: lambda s: [(r(s.b, s.n, s.c), 1, 0), (r(3, s.b, s.n), 0, -1)],
    aten.unbind.int: lambda s: [(r(s.b, s.n, s.c), 1), (r(3, s.b, s.n),)],
    aten.diagonal.default: lambda s: [(r(s.b, s.n, s.n, s.c), 0, 1, 2), (r(s.n, s.m),)],
    aten.view_as_real.default: lambda s: [(z(s.b, s.n, s.c),)],
    aten.view_as_complex.default: lambda s: [(r(s.b, s.n, s.c, 2),)],
    aten.expand.default: lambda s: [(r(s.b, 1, s.n), [-1, s.h, -1]), (r(s.n, s.c), [s.b, s.n, s.c])],
    aten.repeat.default: lambda s: [(r(s.b, s.n, s.c), [1, 2, 1]), (r(s.n, s.c), [3, 1, 1])],
    aten.slice.Tensor: lambda s: [(r(s.b, s.n + 1, s.c), 1, 1, 99), (r(s.b, s.n, s.c), 1, 0, 99), (r(s.b, s.n), 0)],
    aten.cat.default: lambda s: [
        ([r(s.b, s.n, s.c), r(s.b, s.m, s.c)], 1),
        ([r(s.b, s.n), r(s.b, s.n)], -1),
        ([r(0), r(s.n, s.b), r(s.m, s.b)], 0),
    ],
    aten.stack.default: lambda s: [([r(s.b, s.n), r(s.b, s.n)], 1), ([r(s.b, s.n), r(s.b, s.n)], -1)],
    aten.split.Tensor: lambda s: [(r(s.b, s.n, 2 * s.c), s.c, -1)],
    aten.split_with_sizes.default: lambda s: [(r(s.b, s.n, s.c + s.m), [s.c, s.m], 2)],
    aten.unfold.default: lambda s: [(r(s.b, s.n + 1, s.c), 1, 2, 1)],
    # reading and writing by position
    aten.gather.default: lambda s: [
        (r(s.b, s.n, s.c), 1, ids(s.n, s.b, s.m, s.c)),
        (r(s.b, s.n, s.c), -1, backwards(2, s.b, s.n, s.c)),
        (r(s.b + 1, s.n, s.c), 1, ids(s.n, s.b, s.m, s.c)),
    ],
    aten.index_select.default: lambda s: [(r(s.b, s.n, s.c), 1, ids(s.n, s.m)), (r(s.b, s.n, s.c), -1, ids(s.c, 3))],
    aten.index.Tensor: lambda s: [*indices(s), *masks(s)],
    aten._unsafe_index.Tensor: indices,
    aten.index_put.default: index_writes,
    **each((aten.scatter.src, aten.scatter_add.default), scatters),
    aten.scatter.value: lambda s: [(r(s.b, s.n, s.c), 1, backwards(1, s.b, s.n, s.c)[:, :1], 0.5)],
    aten.scatter_reduce.two: lambda s: [(*example, "amax") for example in scatters(s)],
    **each(
        (aten.index_add.default, aten.index_copy.default),
        lambda s: [(r(s.b, s.n, s.c), 1, backwards(0, s.n), r(s.b, s.n, s.c)), (r(s.n), 0, backwards(0, s.n), r(s.n))],
    ),
    aten.slice_scatter.default: lambda s: [
        (r(s.b, s.n + 1, s.c), r(s.b, s.n, s.c), 1, 1, 99),
        (r(s.b, s.n, s.c), r(s.b, s.n, s.c), 1, 0, 99),
    ],
    aten.select_scatter.default: lambda s: [(r(s.b, s.n, s.c), r(s.b, s.c), 1, 0), (r(s.b, s.n), r(s.b), -1, 0)],
    # images
    aten.convolution.default: convolutions,
    aten.avg_pool1d.default: lambda s: [(r(s.b, s.c, s.n), [3], [1], [1]), (r(s.c, 2 * s.n), [2])],
    aten.avg_pool2d.default: lambda s: [
        (r(s.b, s.c, s.n, s.m), [3, 3], [1, 1], [1, 1]),
        (r(s.b, s.c, 2 * s.n, 2 * s.m), [2, 2]),
    ],
    aten.avg_pool3d.default: lambda s: [(r(s.b, s.c, s.n + 2, s.m + 2, s.h + 2), [3, 3, 3], [1, 1, 1], [1, 1, 1])],
    aten.max_pool2d_with_indices.default: lambda s: [
        (r(s.b, s.c, s.n, s.m), [3, 3], [1, 1], [1, 1]),
        (r(s.c, 2 * s.n, 2 * s.m), [2, 2]),
    ],
    aten.max_pool3d_with_indices.default: lambda s: [
        (r(s.b, s.c, s.n + 2, s.m + 2, s.h + 2), [3, 3, 3], [1, 1, 1], [1, 1, 1])
    ],
    aten.adaptive_avg_pool1d.default: lambda s: [(r(s.b, s.c, 2 * s.n), [s.n])],
    **each(
        (aten._adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default),
        lambda s: [(r(s.b, s.c, 2 * s.n, 2 * s.m), [s.n, s.m])],
    ),
    aten._adaptive_avg_pool3d.default: lambda s: [(r(s.b, s.c, 2 * s.n, 2 * s.m, 2), [s.n, s.m, 1])],
    aten.upsample_nearest1d.vec: lambda s: [(r(s.b, s.c, s.n), None, [2.0])],
    **each(
        (aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default),
        lambda s: [(r(s.b, s.c, s.n, s.m), [2 * s.n, 2 * s.m], None)],
    ),
    **each(
        (aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec),
        lambda s: [(r(s.b, s.c, s.n, s.m), [2 * s.n, 2 * s.m], False, None)],
    ),
    aten.grid_sampler_2d.default: lambda s: [(r(s.b, s.c, s.n, s.m), r(s.b, s.h, s.n, 2).tanh(), 0, 0, False)],
    aten.pixel_shuffle.default: lambda s: [(r(s.b, 4 * s.c, s.n, s.m), 2)],
    aten.pixel_unshuffle.default: lambda s: [(r(s.b, s.c, 2 * s.n, 2 * s.m), 2)],
    **each(
        (aten.reflection_pad1d.default, aten.replication_pad1d.default),
        lambda s: [(r(s.b, s.c, s.n + 1), [1, 0])],
    ),
    **each(
        (aten.reflection_pad2d.default, aten.replication_pad2d.default),
        lambda s: [(r(s.b, s.c, s.n + 1, s.m + 1), [1, 0, 0, 1])],
    ),
    aten.constant_pad_nd.default: lambda s: [(r(s.b, s.n, s.c), [1, 0]), (r(s.b, s.n, s.c), [0, 0, 1, -1], 2.0)],
    # pointwise without PyTorch's tag
    **each(
        (
            aten._to_copy.default,
            aten.clone.default,
            aten.contiguous.default,
            aten.detach.default,
            aten.alias.default,
            aten.lift_fresh_copy.default,
            aten.full_like.default,
            aten.zeros_like.default,
            aten.ones_like.default,
            aten.hardswish.default,
            aten.log_sigmoid.default,
        ),
        x,
    ),
    aten.full_like.default: lambda s: [(r(s.b, s.n), 2.0)],
    aten.fill.Scalar: lambda s: [(r(s.b, s.n), 2.0)],
    aten.fill.Tensor: lambda s: [(r(s.b, s.n), torch.tensor(2.0))],
    aten.to.dtype: lambda s: [(r(s.b, s.n), torch.float32)],
    aten.to.device: lambda s: [(r(s.b, s.n), torch.device("cpu"), torch.float32)],
    aten.to.dtype_layout: lambda s: [(r(s.b, s.n), {"dtype": torch.float32})],
    aten.copy.default: lambda s: [(r(s.b, s.n), r(s.n)), (r(s.b, s.n), r(s.b, s.n))],
    aten.masked_fill.Tensor: lambda s: [(r(s.b, s.n, s.c), no(s.n, 1), torch.tensor(0.5))],
    aten.where.ScalarOther: lambda s: [(~no(s.n, 1), r(s.b, s.n, s.c), 0.5)],
    aten.where.ScalarSelf: lambda s: [(no(s.b, 1, s.c), 0.5, r(s.n, s.c))],
    aten._prelu_kernel.default: lambda s: [(r(s.b, s.n, s.c), r(1, s.n, 1))],
    **each((aten.floor_divide.default, aten.rsub.Tensor), two),
    aten.isclose.default: lambda s: [(torch.ones(s.b, s.n), torch.ones(s.b, s.n))],
    **each((aten.complex.default, aten.polar.default), two),
    **each(
        (aten.real.default, aten.imag.default, aten._conj.default, aten.resolve_conj.default),
        lambda s: [(z(s.b, s.n),)],
    ),
    **each(
        (aten.dropout.default, aten.native_dropout.default),
        lambda s: [(r(s.b, s.n, s.c), 0.5, False), (r(s.b, s.n, s.c), 0.5, True)],
    ),
    # new tensors
    **each(FACTORIES, lambda s: []),
    **each((aten.new_zeros.default, aten.new_ones.default), lambda s: [(r(s.b, s.n), [s.n])]),
    aten.new_full.default: lambda s: [(r(s.b, s.n), [s.n], 2.0)],
    # Operators that PyTorch itself calls pointwise need no line in the table.
    aten.add.Tensor: lambda s: [(r(s.b, s.n, s.c), r(s.n, s.c)), (r(s.b, s.n, 1), r(1, s.c)), (r(s.b, s.n), 1)],
    aten.where.self: lambda s: [(no(s.b, 1, 1, s.m), r(1), r(s.b, s.h, s.n, s.m))],
    aten.masked_fill.Scalar: lambda s: [(r(s.b, s.h, s.n, s.m), no(s.b, 1, 1, s.m), -1.0)],
    aten.gelu.default: x,
}
