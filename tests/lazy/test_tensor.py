"""Late-bound results."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from marche_fx.lazy.rows import RowNumbers
from marche_fx.lazy.tensor import LateTensor, resolved
from marche_fx.marks import ATTRIBUTE

VALUE = torch.randn(3, 6, 4)


def rows_read(shape: torch.Size, dims: tuple[int, int], index: Any) -> Tensor:
    reader = Reader(torch.zeros(shape))
    resolved(late(reader, dims)[index])
    (asked,) = reader.asked or [torch.zeros(shape[dims[0]], shape[dims[1]], dtype=torch.bool)]
    return torch.ones(shape[dims[0]], shape[dims[1]], dtype=torch.bool) if asked is None else asked


class Reader:
    """Gives the value and notes which rows were asked for."""

    def __init__(self, value: Tensor = VALUE) -> None:
        self.value = value
        self.asked: list[Tensor | None] = []
        self.views: list[Any] = []

    def to_note_later(self) -> Callable[[], None]:
        return lambda: None

    def has(self, tokens: Tensor | None) -> bool:
        return False

    def read(self, tokens: Tensor | None, *, is_read: bool = True) -> list[Tensor]:
        self.asked.append(tokens)
        return [self.value]


def late(reader: Reader, dims: tuple[int, int] | None = (0, 1)) -> LateTensor:
    numbers = None if dims is None else RowNumbers.plain(reader.value.shape, dims)
    return LateTensor.of_result(reader.value, numbers, reader)


def test_reading_rows_asks_for_exactly_those() -> None:
    reader = Reader()
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 2] = mask[1, 5] = True
    read = late(reader)[mask.nonzero(as_tuple=True)]
    assert torch.equal(read, VALUE[mask])
    (asked,) = reader.asked
    assert asked is not None
    assert torch.equal(asked, mask)


def test_what_was_asked_for_stays_when_the_loop_goes_on_with_its_mask() -> None:
    reader, mask = Reader(), torch.ones(3, 6, dtype=torch.bool)
    late(reader)[mask]
    mask[:] = False
    (asked,) = reader.asked
    assert asked is not None
    assert asked.all()


@pytest.mark.parametrize(
    "index",
    [
        (slice(None), 2),
        (slice(None), slice(None, None, 2)),
        (..., slice(3, 5), slice(1, 2)),
        (slice(None), torch.tensor([0, 5])),
        (slice(None), torch.tensor([0, 5]), 1),
        (None, slice(None), 3),
        (torch.tensor([[0], [2]]), torch.tensor([[1, 4]])),
        torch.arange(18).view(3, 6) % 5 == 1,
        torch.arange(72).view(3, 6, 4) % 11 == 2,
        (torch.tensor([True, False, True]), 4),
    ],
)
def test_any_index_asks_for_the_rows_it_reads_and_no_others(index: Any) -> None:
    rows = rows_read(VALUE.shape, (0, 1), index)
    poisoned = VALUE.clone()
    poisoned[~rows] = float("nan")
    assert torch.equal(poisoned[index], VALUE[index])
    for sample, row in rows.nonzero().tolist():
        poisoned = VALUE.clone()
        poisoned[sample, row] = float("nan")
        assert poisoned[index].isnan().any()


def test_rows_of_one_sample_are_computed_with_those_of_the_others() -> None:
    """A loop that goes from sample to sample would run a step for each."""
    assert rows_read(VALUE.shape, (0, 1), (0, slice(1, 2))).nonzero().tolist() == [[0, 1], [1, 1], [2, 1]]


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
@given(st.data())
def test_a_mask_is_read_as_any_other_index_is(data: st.DataObject) -> None:
    """Also where its shape is that of other dimensions than samples and rows."""
    size = st.integers(1, 3)
    shape = torch.Size(data.draw(st.lists(size, min_size=2, max_size=4)))
    first, second, *_ = data.draw(st.permutations(range(len(shape))))
    addressed = shape[: data.draw(st.integers(1, len(shape)))]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    mask = torch.rand(addressed, generator=generator) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    if data.draw(st.booleans()):
        mask = mask.to(torch.uint8)  # As masks were written before there was a bool.
    count = shape[first] * shape[second]
    order = [first, second, *(dim for dim in range(len(shape)) if dim not in (first, second))]
    numbers = torch.arange(count).view(shape[first], shape[second], *[1] * (len(shape) - 2))
    numbers = numbers.expand([shape[dim] for dim in order]).permute([order.index(dim) for dim in range(len(shape))])
    expected = torch.zeros(count, dtype=torch.bool)
    expected[numbers[mask].flatten()] = True
    expected = expected.view(shape[first], shape[second])
    found = rows_read(shape, (first, second), mask)
    assert found.dtype == torch.bool
    assert torch.equal(found, expected)


@given(st.permutations([0, 1, 2]), st.integers(0, 5))
def test_samples_and_rows_may_stand_in_any_dimensions(order: list[int], row: int) -> None:
    value = VALUE.permute(order)
    dims = (order.index(0), order.index(1))
    rows = rows_read(value.shape, dims, tuple(row if dim == dims[1] else slice(None) for dim in range(3)))
    assert rows.nonzero()[:, 1].unique().tolist() == [row]


@pytest.mark.parametrize(
    "use",
    [
        lambda z: z + 1,
        lambda z: 1 + z,
        lambda z: torch.cat([z, z]),
        lambda z: z.softmax(-1),
        lambda z: torch.nn.functional.linear(z, torch.eye(4)),
        lambda z: z.view(-1, 4) + 0,
        lambda z: z.clone(),
        lambda z: z.transpose(1, 2) * 2,
        lambda z: z.chunk(3)[1].exp(),
        lambda z: z[..., 1:].sum(1),
        lambda z: z.unbind(2)[0] + 1,
        lambda z: z.unflatten(2, (2, 2)).flatten(1, 2) + 1,
    ],
)
def test_any_other_use_asks_for_all_and_gives_what_the_tensor_would(use: Callable[[Tensor], Tensor]) -> None:
    reader = Reader()
    assert torch.equal(use(late(reader)), use(VALUE))
    assert reader.asked
    assert all(rows is None for rows in reader.asked)


def saved(z: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save({"z": z}, file)
    file.seek(0)
    return torch.load(file)["z"]


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda z: pickle.loads(pickle.dumps(z)), saved])
def test_a_copy_or_a_file_holds_the_value(through: Callable[[Tensor], Tensor]) -> None:
    found = through(late(Reader()))
    assert type(found) is Tensor
    assert torch.equal(found, VALUE)


def test_rows_may_be_iterated_and_unpacked() -> None:
    reader = Reader()
    assert torch.equal(torch.stack(list(late(reader))), VALUE)
    first, *_ = late(reader)
    assert torch.equal(first, VALUE[0])


def test_a_mask_may_read_rows_that_come_last() -> None:
    value = VALUE.transpose(1, 2)
    reader = Reader(value)
    mask = torch.zeros(3, 4, 6, dtype=torch.bool)
    mask[0, :, 2] = mask[1, 0, 5] = True
    assert torch.equal(late(reader, (0, 2))[mask], value[mask])
    (asked,) = reader.asked
    assert asked is not None
    assert asked.nonzero().tolist() == [[0, 2], [1, 5]]


def test_a_result_may_stand_anywhere_in_its_memory() -> None:
    # Whole numbers, whose sum is the same in every order.
    value = torch.arange(84.0).view(3, 7, 4)[:, 1:]
    assert torch.equal(late(Reader(value)) + 1, value + 1)
    assert torch.equal(late(Reader(value))[:, 2:, 1].sum(), value[:, 2:, 1].sum())
    assert torch.equal(late(Reader(value))[:, 4], value[:, 4])


def test_shape_dtype_and_device_are_known_without_values() -> None:
    reader = Reader()
    z = late(reader)
    assert isinstance(z, Tensor)
    assert z.shape == (3, 6, 4)
    assert (z.dtype, z.device, z.ndim, z.size(1), len(z), z.numel()) == (torch.float32, VALUE.device, 3, 6, 3, 72)
    assert not reader.asked


def test_without_rows_of_tokens_an_index_asks_for_all() -> None:
    reader = Reader()
    assert torch.equal(late(reader, None)[0], VALUE[0])
    assert reader.asked == [None]


def test_conversions_from_outside_of_torch_give_values() -> None:
    reader = Reader()
    assert torch.equal(torch.tensor(late(reader).tolist()), VALUE)
    assert (late(reader).numpy() == VALUE.numpy()).all()
    assert "LateTensor" not in repr(late(reader))
    assert float(late(Reader(torch.tensor(2.5)), None)) == 2.5


def test_resolved_replaces_late_tensors_in_nested_values() -> None:
    found = resolved({"logits": [late(Reader()), 3]})
    assert type(found["logits"][0]) is Tensor
    assert torch.equal(found["logits"][0], VALUE)
    assert found["logits"][1] == 3


class Network(nn.Module):
    """That looks rows up by ids, and notes whether it was given late ones."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.mix = nn.Embedding(8, 4), nn.Linear(4, 4)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.word(ids)
        assert not isinstance(rows, LateTensor)
        return self.mix(rows)


@torch.no_grad()
def test_ids_that_another_network_looks_up_are_computed_before_its_operators() -> None:
    reader, network = Reader(torch.arange(18).reshape(3, 6) % 8), Network()
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 2] = mask[1, 5] = True
    ids = torch.where(mask, late(reader), torch.zeros(3, 6, dtype=torch.int64))
    assert torch.equal(network(ids), network(torch.where(mask, reader.value, 0)))
    assert len(reader.asked) == 1
    assert torch.equal(reader.asked[0], mask)  # type: ignore[arg-type]


@torch.no_grad()
def test_ids_that_the_loop_looks_up_itself_stay_late() -> None:
    reader, word = Reader(torch.arange(18).reshape(3, 6) % 8), nn.Embedding(8, 4)
    rows = word(late(reader))
    assert isinstance(rows, LateTensor)
    assert torch.equal(rows[:, 2], word(reader.value)[:, 2])
    (asked,) = reader.asked
    assert asked is not None
    assert int(asked.sum()) == 3


class LoopInForward(nn.Module):
    """Whose ``forward`` is the loop: it looks late ids up itself, beside the network that it decodes with."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.word = net, nn.Embedding(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.word(ids)


@torch.no_grad()
def test_ids_that_a_loop_in_a_forward_looks_up_stay_late() -> None:
    ids = torch.arange(18).reshape(3, 6) % 8
    net = nn.Module()
    assert not isinstance(LoopInForward(net)(late(Reader(ids))), LateTensor)
    net.__dict__[ATTRIBUTE] = "what was done to it"
    assert isinstance(LoopInForward(net)(late(Reader(ids))), LateTensor)
