"""Common functions of PyTorch, captured: every operator that they become has a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marche_fx.passes.capture.export import decompositions
from marche_fx.passes.rules.table import has_rule

from ...graphs import Function

X = torch.randn(2, 5, 8)
IMAGE = torch.randn(2, 8, 6, 6)
IDS = torch.tensor([[3, 0, 1, 4, 2], [1, 2, 0, 0, 4]])
MASK = IDS > 1


def reductions(x: Tensor) -> list[Any]:
    return [
        *(
            x.std(-1),
            x.var(1),
            *torch.var_mean(x, -1),
            *torch.std_mean(x, -1),
            x.prod(-1),
            x.logsumexp(-1),
            x.norm(dim=-1),
        ),
        *(x.max(-1).values, x.amin(-1), x.max(), x.argmax(-1), x.median(-1).values, x.nansum(-1), x.nanmean(-1)),
        *((x > 0).all(-1), (x > 0).any(), (x > 0).any(dim=(0, 1)), torch.count_nonzero(x, -1), x.quantile(0.5, -1)),
        *(F.normalize(x, dim=-1), F.cosine_similarity(x, x, -1), torch.linalg.matrix_norm(x), torch.cdist(x, x)),
    ]


def shapes(x: Tensor) -> list[Any]:
    return [
        *(x[0].t(), x.mT, x[:1].squeeze(), x.repeat(1, 2, 1), x.repeat_interleave(3, 1), x.unfold(1, 2, 1)),
        *(torch.stack([x, x], 1), *x.chunk(2, -1), *x.unbind(1), x.narrow(1, 1, 2), *x.tensor_split(2, 1)),
        *(x.movedim(1, 0).unflatten(-1, (2, 4)).flatten(1, 2).swapaxes(0, 1), x[:, :1].expand_as(x), x[0].diagonal()),
        *(torch.meshgrid(x[0, 0], x[0, 1], indexing="ij"), x.diff(dim=1), x.rot90(1, (1, 2)), torch.kron(x[0], x[1])),
        *(torch.einsum("...ij,...kj->...ik", x, x), torch.tensordot(x, x, ([2], [2])), x[0] @ x[0, 0], x @ x[0, 0]),
    ]


def positions(x: Tensor, ids: Tensor, mask: Tensor) -> list[Any]:
    written = x.clone()
    written[mask] = 0.0
    written[:, 1:3] = 1.0
    written[:, 4] = x[:, 2]
    written[:, ids[0]] = x[:, :1]
    zeros = torch.zeros(2, 5)
    return [
        *(x[torch.arange(2)[:, None], ids], x.index_select(1, ids[0]), x.gather(1, ids[..., None].expand(-1, -1, 8))),
        *(written, zeros.scatter(1, ids, 1.0), zeros.scatter_add(1, ids, x[..., 0]), zeros.index_fill(1, ids[0], 1.0)),
        *(zeros.index_add(1, ids[0], zeros), torch.take_along_dim(x, ids[..., None], 1), F.one_hot(ids, 5)),
        *(x.masked_fill(mask[..., None], torch.tensor(-1.0)), torch.where(mask[..., None], x, 0.0)),
        *(x.topk(2, -1).values, x.sort(1).values, x.argsort(-1), torch.isin(ids, ids[0]), F.embedding(ids, x[0])),
        *(
            x.cumsum(1),
            x.cumprod(1),
            x.cummax(1).values,
            x.logcumsumexp(1),
            x.flip(1),
            x.roll(1, 1),
            x.tril(),
            x.triu(),
        ),
        *(torch.bucketize(x, torch.arange(3.0)), torch.searchsorted(torch.arange(3.0), x)),
        *(torch.fft.fft2(x).real, torch.fft.irfft(torch.fft.rfft(x)), torch.fft.fftshift(x)),
    ]


def images(x: Tensor, image: Tensor) -> list[Any]:
    kernel = image[:, :4, :3, :3]
    return [
        *(
            F.conv2d(image, kernel, padding=1, groups=2),
            F.conv_transpose2d(image, image[:, :, :2, :2].mT[:1].expand(8, -1, -1, -1)),
        ),
        *(
            F.conv1d(x, x[:, :, :3], padding=1),
            F.avg_pool2d(image, 3, 1, 1),
            F.avg_pool1d(x, 2),
            F.max_pool2d(image, 2),
        ),
        *(F.adaptive_avg_pool2d(image, 1), F.adaptive_avg_pool2d(image, 4), F.adaptive_max_pool2d(image, 3)),
        *(F.interpolate(image, scale_factor=2), F.interpolate(image, scale_factor=2, mode="bilinear")),
        *(F.interpolate(image, scale_factor=2, mode="bicubic"), F.interpolate(x, scale_factor=2)),
        *(F.pad(image, (1, 1)), F.pad(image, (1, 1, 1, 1), "reflect"), F.pad(x, (1, 1), "circular")),
        *(F.unfold(image, 3), F.pixel_shuffle(image, 2), F.pixel_unshuffle(image, 2), F.group_norm(image, 2)),
        *(F.batch_norm(image, torch.zeros(8), torch.ones(8)), F.grid_sample(image, torch.zeros(2, 3, 3, 2))),
    ]


def values(x: Tensor) -> list[Any]:
    half = x[..., :4]
    rotated = torch.view_as_complex(x.reshape(2, 5, 4, 2)) * torch.polar(torch.ones(4), torch.ones(4)).conj()
    made = [
        x.new_zeros(5),
        torch.full((5,), 2.0),
        torch.arange(5),
        torch.linspace(0, 1, 5),
        torch.eye(5),
        torch.tensor(2.0),
    ]
    return [
        *(F.glu(x), F.hardswish(x), F.logsigmoid(x), F.selu(x), F.prelu(half, torch.tensor([0.1])), F.softsign(x)),
        *(torch.floor_divide(x, 2), torch.isclose(x, x), torch.rsub(x, x), torch.xlogy(x, x), torch.lerp(x, x, 0.5)),
        *(torch.view_as_real(rotated), torch.complex(x, x).abs(), torch.complex(x, x).imag, *(m + 0 for m in made)),
        *(
            x.double().to(torch.float16).type_as(x),
            F.dropout(x, 0.5, False),
            torch.zeros_like(x),
            torch.full_like(x, 2),
        ),
        *(
            x.softmax(-1),
            x.log_softmax(1),
            F.layer_norm(x, [8]),
            F.rms_norm(x, [8]),
            torch.native_layer_norm(x, [8], None, None, 0.1)[1],
        ),
        *(F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]), torch.baddbmm(x, x, x.new_ones(2, 8, 8))),
    ]


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (reductions, (X,)),
        (shapes, (X,)),
        (positions, (X, IDS, MASK)),
        (images, (X, IMAGE)),
        (values, (X,)),
        (nn.GRU(8, 8, batch_first=True), (X,)),
        (nn.MultiheadAttention(8, 2, batch_first=True).eval(), (X, X, X)),
    ],
    ids=["reductions", "shapes", "positions", "images", "values", "GRU", "MultiheadAttention"],
)
def test_common_functions_become_operators_with_rules(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    exported = torch.export.export(Function(function).eval(), args, strict=False).run_decompositions(decompositions())
    operators = [node for node in exported.graph.nodes if hasattr(node.target, "_schema")]
    unknown = {str(node.target) for node in operators if not has_rule(node)}
    # Capturing a step erases assertions.
    assert {name for name in unknown if "_assert" not in name} == set()
