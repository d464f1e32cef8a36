"""Operators of a loop on late results: recorded, and run on the rows that are finally asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from marche_fx.lazy.operators import is_known
from marche_fx.lazy.tensor import LateTensor, resolved
from tests.lazy.test_writes import MASK, B, N, PartialStep, V

IDS = torch.arange(B * N).view(B, N) % V
PLACES = torch.tensor([[6, 0, 3], [1, 1, 2]])
WEIGHT = torch.linspace(-1, 1, V * V).view(V, V).double()


def sorted_and_back(values: Tensor, order: Tensor) -> Tensor:
    return torch.gather(values, -1, order.argsort(-1))


WIDE: dict[str, Callable[[Any], Any]] = {
    "temperature": lambda z: z / 0.7,
    "half precision and back": lambda z: z.float().double(),
    "softmax": lambda z: F.softmax(z, dim=-1),
    "log_softmax": lambda z: z.log_softmax(2),
    "a bias for words": lambda z: z + torch.arange(V).double(),
    "a bias for tokens": lambda z: z * torch.linspace(0, 1, N).double()[:, None],
    "a bias for samples": lambda z: z - torch.ones(B, 1, 1).double(),
    "noise drawn for all": lambda z: z - torch.log(-torch.log(torch.rand_like(z))),
    "noise drawn in place": lambda z: z + torch.empty_like(z).exponential_(),
    "zeros, then noise": lambda z: z + torch.zeros_like(z).uniform_(0, 1),
    "the best words only": lambda z: z.masked_fill(z < z.topk(2, -1).values[..., -1:], -5.0),
    "sorted and back": lambda z: sorted_and_back(*z.sort(-1)),
    "one word is never said": lambda z: torch.where(torch.arange(V) == 1, -3.0, z),
    "shifted by one": lambda z: torch.cat([z[:, :1], z[:, :-1]], dim=1),
    "turned around": lambda z: z.flip(1),
    "turned around in samples": lambda z: z.flip(0, 1),
    "a part turned around": lambda z: torch.cat([z[:, 4:].flip(1), z[:, :4]], 1),
    "rolled": lambda z: z.roll(3, 1),
    "rolled along samples too": lambda z: z.roll((-2, 1), (1, 0)),
    "rolled by nothing": lambda z: z.roll((0, N), (1, 1)),
    "samples repeated": lambda z: z.repeat(3, 1, 1)[1 : 1 + B],
    "tokens repeated": lambda z: z.repeat(2, 2, 1)[1 : 1 + B, 3 : 3 + N],
    "the first sample for all": lambda z: z[:1].expand(B, -1, -1) * 1,
    "padded in front": lambda z: F.pad(z, (0, 0, 1, 0), value=0.75)[:, :-1],
    "padded behind": lambda z: F.pad(z, (0, 0, -2, 2, -1, 1)),
    "one token, padded": lambda z: F.pad(z, (0, 0, -N + 1, N - 1), value=-1.5),
    "samples doubled": lambda z: torch.cat([z, z * 2]).chunk(2)[1],
    "guided by the other sample": lambda z: torch.cat([z[:1] + 2 * (z[:1] - z[1:]), z[1:]]),
    "stacked": lambda z: torch.stack([z, -z])[1],
    "channels first and back": lambda z: (z.transpose(1, 2) * 2).softmax(1).movedim(1, 2),
    "rows and samples joined": lambda z: z.reshape(-1, V).cumsum(-1).view(B, N, V),
    "normalised": lambda z: z - z.logsumexp(-1, keepdim=True),
    "mapped": lambda z: (z[..., None] * WEIGHT).sum(2),
    "a word's own logit": lambda z: z - z.gather(-1, IDS[..., None]),
    "rows put aside": lambda z: z.where(MASK[..., None], torch.zeros((), dtype=z.dtype)),
    "written": lambda z: [z := z * 1, z.__setitem__((slice(None), slice(5, None)), -2.0), z][-1],
    "written by a mask": lambda z: [z := z + 0, z.__setitem__(MASK, 0.5), z][-1],
    "added in place": lambda z: [z := z + 0, z.add_(torch.ones(V).double()), z.div_(2), z][-1],
    "a view written": lambda z: [z := z.clone(), z[..., 0].fill_(0.25), z[1].mul_(2), z][-1],
}
NARROW: dict[str, Callable[[Any], Any]] = {
    "argmax": lambda z: z.argmax(-1),
    "largest": lambda z: z.max(dim=-1).values,
    "margin": lambda z: z.topk(2, dim=-1).values.diff(dim=-1).squeeze(-1),
    "entropy": lambda z: -(z.softmax(-1) * z.log_softmax(-1)).sum(-1),
    "probability of the best": lambda z: torch.gather(z.softmax(-1), -1, z.argmax(-1, keepdim=True)).squeeze(-1),
    "entropy of what is no nan": lambda z: -(z.softmax(-1) * z.log_softmax(-1)).nansum(-1),
    "mean of what is no nan": lambda z: z.where(z > 0, torch.nan).nanmean(-1),
    "spread": lambda z: (lambda least, most: most - least)(*z.aminmax(dim=-1)),
    "drawn": lambda z: torch.multinomial(z.softmax(-1).view(-1, V), 1).view(B, N),
    "two drawn": lambda z: torch.multinomial(z.softmax(-1).view(-1, V), 2).view(B, N, 2)[..., 1],
    "kept": lambda z: z,
}


def all_but(z: Tensor) -> Tensor:
    """What a loop does to tokens behind the current block."""
    z[..., 3:] = -9.0
    return z.sum(1)


def of_some_channels(z: Tensor) -> Tensor:
    index = PLACES[:, None].expand(B, min(2, z.shape[-1]), 3)
    return z.movedim(1, 2).gather(2, index)


READS: dict[str, Callable[[Any], Any]] = {
    "a mask": lambda z: z[MASK],
    "a slice": lambda z: z[:, 2:4] * 1,
    "one sample's rows": lambda z: z[1][MASK[1]],
    "where": lambda z: z.where(MASK.view(B, N, *[1] * (z.ndim - 2)), torch.full((), 7, dtype=z.dtype)),
    "the best of the masked": lambda z: torch.where(MASK, best(z), -torch.inf).topk(2, dim=1).values,
    "sample by sample": lambda z: torch.stack([torch.where(MASK, best(z), -torch.inf)[own].amax() for own in range(B)]),
    "all but the written": lambda z: all_but(best(z) + 0),
    "masked_select": lambda z: best(z).masked_select(MASK),
    "index_select": lambda z: z.index_select(1, torch.tensor([6, 0])),
    "gather": lambda z: best(z).gather(1, PLACES),
    "gather of whole rows": lambda z: z.gather(1, PLACES.view(B, 3, *[1] * (z.ndim - 2)).expand(B, 3, *z.shape[2:])),
    "gather of some channels": lambda z: of_some_channels(z if z.ndim == 3 else z[..., None]),
    "take_along_dim": lambda z: torch.take_along_dim(z, PLACES.view(B, 3, *[1] * (z.ndim - 2)), 1),
    "gather, each channel of another row": lambda z: z.gather(1, torch.arange(z.numel()).view(z.shape)[:, :2] % 3),
}


def best(z: Tensor) -> Tensor:
    return z if z.ndim == 2 else z.max(-1).values


def as_double(z: Any) -> Tensor:
    found: Tensor = resolved(z)
    return found.double()


@given(
    st.lists(st.sampled_from(list(WIDE)), max_size=5),
    st.sampled_from(list(NARROW)),
    st.lists(st.sampled_from(list(READS)), min_size=1, max_size=3),
    st.sampled_from([torch.no_grad, torch.inference_mode, torch.enable_grad]),
)
def test_rows_that_are_read_are_what_the_operators_make_of_them(
    script: list[str], narrow: str, reads: list[str], mode: Callable[[], Any]
) -> None:
    """Rows that nobody asks for are off, so that no operator may let them in."""
    with mode():
        step = PartialStep()
        found = []
        for z in (step.late(), step.exact()):
            torch.manual_seed(0)
            for name in script:
                z = WIDE[name](z)
            z = NARROW[narrow](z)
            drawn = torch.rand(2)
            # Confidence is a number of any kind.
            found.append(
                (*(as_double(READS[name](z if z.is_floating_point() else z.double())) for name in reads), drawn)
            )
        for own, other in zip(*found):
            torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", [*WIDE, *NARROW])
def test_an_operator_reads_nothing(name: str) -> None:
    step = PartialStep()
    found = {**WIDE, **NARROW}[name](step.late())
    assert isinstance(found, LateTensor)
    assert step.last is None


MOVED = [
    *("turned around", "turned around in samples", "a part turned around", "rolled", "rolled along samples too"),
    *("rolled by nothing", "samples repeated", "tokens repeated", "the first sample for all", "padded in front"),
    *("padded behind", "one token, padded"),
]


@pytest.mark.parametrize("name", MOVED)
def test_of_rows_that_are_moved_those_that_are_read_are_computed(name: str) -> None:
    step, numbers = PartialStep(), torch.arange(1.0, 1 + B * N).double().view(B, N, 1).expand(B, N, V)
    assert torch.equal(WIDE[name](step.late())[MASK], WIDE[name](step.exact())[MASK])
    # A row that was put between them is of no token.
    read = WIDE[name](numbers)[MASK][:, 0].long().clamp(0, B * N).unique()
    assert set((step.done.flatten().nonzero()[:, 0] + 1).tolist()) == set(read.tolist()) - {0}


@pytest.mark.parametrize("name", [name for name in READS if name.startswith(("gather", "take"))])
def test_a_gather_along_tokens_reads_the_rows_of_its_index(name: str) -> None:
    step = PartialStep()
    found = READS[name](step.late())
    assert not isinstance(found, LateTensor)
    assert torch.equal(found, READS[name](step.exact()))
    channels = name.startswith("gather, each")
    expected = torch.zeros(B, N, dtype=torch.bool).scatter(
        1, torch.arange(3).expand(B, 3) if channels else PLACES, True
    )
    assert torch.equal(step.done, expected)


def test_a_sample_that_stands_for_many_is_computed_where_one_of_them_is_read() -> None:
    step = PartialStep()
    words = step.late()[:1].expand(B, -1, -1).argmax(-1)
    found = torch.where(MASK, words, IDS)
    assert torch.equal(resolved(found), torch.where(MASK, step.exact()[:1].argmax(-1), IDS))
    assert torch.equal(step.done, torch.stack([MASK.any(0), torch.zeros(N, dtype=torch.bool)]))


def test_an_order_of_all_rows_is_read_as_the_whole_is() -> None:
    step = PartialStep()
    step.late().gather(1, torch.arange(N).flip(0).view(1, N, 1).expand(B, N, V))
    assert step.last is not None
    assert not step.done.any()


def test_operators_that_mix_rows_get_values() -> None:
    for mixes in (lambda z: z.cumsum(1), lambda z: z.flip(1, 2), lambda z: z.sort(1).values, lambda z: z.sum()):
        step = PartialStep()
        assert not isinstance(mixes(step.late()), LateTensor)
        assert step.last is not None


def test_a_compiled_function_calls_its_operators_on_late_tensors() -> None:
    @torch.compile(backend="eager")
    def confident(z: Tensor) -> Tensor:
        return z.softmax(-1).max(-1).values

    step = PartialStep()
    found = confident(step.late())
    assert step.last is None
    assert torch.equal(found[MASK], step.exact().softmax(-1).max(-1).values[MASK])


def test_a_compiled_function_that_is_given_rows_is_compiled_once() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph

    @torch.compile(backend=backend)
    def confident(z: Tensor) -> Tensor:
        return (z / 0.7).softmax(-1).max(-1).values

    for seed in range(3):
        step = PartialStep(seed)
        found = confident(step.late()[MASK])
        assert torch.equal(found, (step.exact()[MASK] / 0.7).softmax(-1).max(-1).values)
        assert torch.equal(step.done, MASK)
    assert len(graphs) == 1


def test_a_compiled_function_of_infix_operators_gives_what_they_do() -> None:
    @torch.compile(backend="eager")
    def confident(z: Tensor) -> Tensor:
        return (z / 0.7 + 1).softmax(-1).max(-1).values

    step = PartialStep()
    assert torch.equal(confident(step.late())[MASK], (step.exact()[MASK] / 0.7 + 1).softmax(-1).max(-1).values)


def test_autocast_is_that_of_the_operator() -> None:
    step = PartialStep()
    step.value, step.stale = step.value.bfloat16(), step.stale.bfloat16()
    found = []
    for z in (step.late(), step.exact()):
        with torch.autocast("cpu", torch.bfloat16):
            z = torch.nn.functional.linear(z.float(), WEIGHT.float()).log_softmax(-1)
        found.append(z[MASK])
    assert found[0].dtype == found[1].dtype
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("wrong", [lambda z: z + torch.ones(3), lambda z: z.gather(-1, IDS), lambda z: z.view(7, -1)])
def test_mistakes_are_told_where_they_are_made(wrong: Callable[[Tensor], Any]) -> None:
    with pytest.raises(RuntimeError):
        wrong(PartialStep().late())
    with pytest.raises(RuntimeError):
        PartialStep().late().add_(torch.ones(3))


def test_operators_whose_shape_depends_on_values_are_not_recorded() -> None:
    assert not is_known(torch.ops.aten.nonzero.default)
    assert not is_known(torch.ops.aten.index.Tensor)
    assert is_known(torch.ops.aten._softmax.default)
