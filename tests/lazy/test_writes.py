"""What a loop writes into a late result is never lost, whatever it reads before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import marche_fx
from marche_fx.lazy.expressions import Given
from marche_fx.lazy.rows import RowNumbers
from marche_fx.lazy.tensor import LateTensor, given_values, resolved

B, N, V = 2, 8, 4


class PartialStep:
    """A step that computes the rows that are read: the others are off, and each run gives a tensor of its own."""

    def __init__(self, seed: int = 0, order: tuple[int, ...] = (0, 1, 2)) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.value = torch.randn(B, N, V, generator=generator, dtype=torch.float64)
        self.stale = torch.randn(B, N, V, generator=generator, dtype=torch.float64)
        self.order = order
        self.done = torch.zeros(B, N, dtype=torch.bool)
        self.last: Tensor | None = None
        self.views: list[Any] = []

    def read(self, tokens: Tensor | None, *, is_read: bool = True) -> list[Tensor]:
        before = self.done.clone()
        if tokens is not None:
            self.done |= tokens
        if self.last is None or not torch.equal(before, self.done):
            self.last = torch.where(self.done[..., None], self.value, self.stale).permute(self.order)
        return [self.last]

    def to_note_later(self) -> Callable[[], None]:
        return lambda: None

    def has(self, tokens: Tensor | None) -> bool:
        return self.last is not None and (tokens is None or not bool((tokens & ~self.done).any()))

    @property
    def dims(self) -> tuple[int, int]:
        return self.order.index(0), self.order.index(1)

    @property
    def numbers(self) -> RowNumbers:
        return RowNumbers.plain(self.value.permute(self.order).shape, self.dims)

    def late(self, *, records: bool = True) -> LateTensor:
        return LateTensor.of_result(self.value.permute(self.order), self.numbers, self, records=records)

    def exact(self) -> Tensor:
        return self.value.permute(self.order).clone(memory_format=torch.preserve_format)


MASK = torch.arange(B * N).view(B, N) % 3 == 1
WRITES: dict[str, Callable[[Any], Any]] = {
    "a channel": lambda z: z.__setitem__((..., 1), -torch.inf),
    "rows of a mask": lambda z: z.__setitem__(MASK, 3.0),
    "rows of an index": lambda z: z.__setitem__((torch.tensor([0, 1]), torch.tensor([4, 1])), 5.0),
    "a slice of rows": lambda z: z.__setitem__((slice(None), slice(2, 5)), 2.0),
    "a sample": lambda z: z[1].fill_(7.0),
    "index_fill_": lambda z: z.index_fill_(-1, torch.tensor([2]), -9.0),
    "what a late mask names": lambda z: z.__setitem__(z > 0.5, -2.0),
    "rows of a late mask": lambda z: z.__setitem__(z.sum(-1) > 0, 3.5),
    "what a mask names": lambda z: z.__setitem__(torch.arange(B * N * V).view(B, N, V) % 5 == 2, 1.25),
    "of itself": lambda z: z.__setitem__((..., 2), z[..., 2] + 1),
    "in itself": lambda z: z[..., 3].__iadd__(0.5),
    "what is late": lambda z: z.copy_(z.flip(-1)),
    "masked_fill_": lambda z: z.masked_fill_(MASK[..., None], -8.0),
    "index_put_": lambda z: z.index_put_((torch.tensor([1]), torch.tensor([6])), torch.tensor(4.0).double()),
    "scatter_": lambda z: z.scatter_(2, torch.full((B, N, 1), 3), 1.5),
    "mul_": lambda z: z.mul_(2),
    "sub_ of what another has": lambda z: z.sub_(torch.arange(V).double()),
    "clamp_": lambda z: z.clamp_(-1, 1),
    "copy_ of a view": lambda z: z[..., 0].copy_(torch.ones(B, N)),
    "a view of a view": lambda z: z.transpose(1, 2)[:, 1:3].unflatten(1, (1, 2))[:, 0, 1].zero_(),
    "a half of the samples": lambda z: z.chunk(2)[0].add_(1),
    "joined samples and rows": lambda z: z.view(-1, V)[..., 2].fill_(0.25),
    "an operator": lambda z: z.__iadd__(1),
    "functional": lambda z: F.relu(z, inplace=True),
    "torch's own": lambda z: torch.relu_(z),
    "out": lambda z: torch.mul(torch.ones(B, N, V).double(), 6.0, out=z),
    "a slice that was read": lambda z: z[:, 3].fill_(-4.0),
    "numpy": lambda z: z[:, 6].numpy().fill(2.5),
    "data": lambda z: z[:, 7].data.fill_(1.25),
}
OF_ALL = ("index_fill_", "what a late mask names", "rows of a late mask", "of itself", "what is late")
"""Where the loop got hold of memory they are computed of all of it, as old as the policy leaves it."""

READS: dict[str, Any] = {
    "a mask": MASK,
    "another mask": ~MASK,
    "two rows": (slice(None), slice(1, 3)),
    "an index": (torch.tensor([0, 1, 1]), torch.tensor([5, 0, 7])),
    "a row": (1, 6),
}


@given(
    st.lists(st.one_of(st.sampled_from(list(WRITES)), st.sampled_from(list(READS))), min_size=1, max_size=7),
    st.sampled_from(["no_grad", "inference", "plain"]),
    st.booleans(),
)
def test_any_order_of_writes_and_reads_gives_what_the_tensor_would(script: list[str], mode: str, records: bool) -> None:
    assume("numpy" not in script or not {*OF_ALL} & {*script[script.index("numpy") :]})
    modes: dict[str, Any] = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "plain": torch.enable_grad}
    with modes[mode]():
        step = PartialStep()
        if not records:
            # As where every step is in full: operators are run at once, on all rows.
            step.read(torch.ones(B, N, dtype=torch.bool))
        late, plain = step.late(records=records), step.exact()
        for name in script:
            if name in WRITES:
                WRITES[name](late)
                WRITES[name](plain)
            else:
                assert torch.equal(late[READS[name]], plain[READS[name]]), name
        for name, index in READS.items():
            assert torch.equal(late[index], plain[index]), name
        every = torch.ones(B, N, dtype=torch.bool)
        assert torch.equal(late[every], plain[every])


@pytest.mark.parametrize("write", [name for name in WRITES if name not in OF_ALL])
def test_a_write_reads_nothing_where_the_loop_got_hold_of_memory(write: str) -> None:
    """Rows that nobody read yet are computed when they are, with what NumPy and the loop wrote."""
    with torch.no_grad():
        step = PartialStep()
        late, plain = step.late(), step.exact()
        for own in (late, plain):
            WRITES["numpy"](own)
            WRITES[write](own)
        for index in READS.values():
            assert torch.equal(late[index], plain[index])


def test_what_is_not_proved_to_write_row_by_row_gets_the_whole_of_memory_that_was_handed_out() -> None:
    """As old as the policy leaves it: what NumPy wrote is part of what it reads, and no row can be computed alone."""
    step = PartialStep()
    late = step.late()
    with torch.no_grad():
        WRITES["numpy"](late)
        WRITES["index_fill_"](late)
    stale = torch.where(step.done[..., None], step.value, step.stale)
    WRITES["numpy"](stale)
    WRITES["index_fill_"](stale)
    assert torch.equal(late[~MASK], stale[~MASK])
    assert int(step.done.sum()) == B


@pytest.mark.parametrize("name", ["normal_", "exponential_"])
def test_draws_into_memory_that_was_handed_out_are_those_of_the_original(name: str) -> None:
    step, found = PartialStep(), []
    for own in (step.late(), step.exact()):
        WRITES["numpy"](own)
        torch.manual_seed(1)
        getattr(own, name)()
        found.append((own[MASK], torch.rand(2)))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(
    "write",
    [
        lambda z: torch.mul(torch.ones(B, N, V).double(), 6.0, out=z),
        lambda z: torch.neg(torch.ones(B, V).double(), out=z[:, 1]),
        lambda z: torch.mul(z, 0.5, out=z),
        lambda z: torch.add(torch.ones(B, N, V).double(), z, out=z),
        lambda z: torch._foreach_add_([z[0], z[1]], 0.125),
    ],
    ids=["of others", "through a view", "of itself", "of itself too", "many at once"],
)
def test_what_an_operator_writes_into_any_of_its_arguments_is_kept(write: Callable[[Any], Any]) -> None:
    step = PartialStep()
    # Some read all rows first, however old.
    step.stale = step.value
    late, plain = step.late(), step.exact()
    for own in (late, plain):
        with torch.no_grad():
            write(own)
    assert torch.equal(late[MASK], plain[MASK])
    assert torch.equal(resolved(late), plain)


def test_what_is_computed_of_a_late_tensor_may_be_put_into_another() -> None:
    step, own = PartialStep(), torch.zeros(B, N, V).double()
    late = step.late()
    with torch.no_grad():
        assert torch.add(late, 1, out=own) is own
    assert torch.equal(own, step.stale + 1)
    assert torch.equal(late[MASK], step.exact()[MASK])


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_samples_and_rows_may_stand_anywhere(order: tuple[int, ...], contiguous: bool) -> None:
    step = PartialStep(order=order)
    plain = step.exact()
    late = LateTensor.of_result(plain.contiguous() if contiguous else plain, step.numbers, step)
    rows: list[Any] = [slice(None)] * 3
    rows[step.dims[1]] = torch.tensor([2, 5])
    channel: list[Any] = [slice(None)] * 3
    channel[order.index(2)] = 1
    for own in (late, plain):
        own[tuple(channel)] = 3.0
        own.transpose(0, 1).mul_(2)
    assert torch.equal(late[tuple(rows)], plain[tuple(rows)])


def test_what_is_written_into_a_value_that_was_handed_out_stays() -> None:
    z = PartialStep().late()
    resolved(z)[:, 5] = -1.5
    assert (z[:, torch.tensor([1, 5])][:, 1] == -1.5).all()


def test_a_write_reads_nothing() -> None:
    step = PartialStep()
    z = step.late()
    z[..., 1] = -torch.inf
    z.transpose(1, 2).mul_(2)
    assert step.last is None


def test_what_is_written_is_as_it_was_then() -> None:
    step, value, mask = PartialStep(), torch.ones(V).double(), MASK.clone()
    z = step.late()
    z[mask] = value
    value.zero_()
    mask.fill_(True)
    assert torch.equal(z[MASK], torch.ones(int(MASK.sum()), V).double())
    assert torch.equal(z[:, 0], step.value[:, 0])


@pytest.mark.parametrize("name", ["normal_", "exponential_", "uniform_", "bernoulli_"])
def test_draws_are_those_of_the_original(name: str) -> None:
    step = PartialStep()
    late, plain = step.late(), step.exact()
    found = []
    for own in (late, plain):
        torch.manual_seed(1)
        getattr(own, name)()
        torch.rand(3)
        found.append((own[MASK], torch.rand(2)))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", ["t_", "unsqueeze_", "squeeze_", "transpose_", "resize_"])
def test_what_changes_the_shape_in_place_is_refused(name: str) -> None:
    with pytest.raises(marche_fx.ArgumentError, match=rf"{name} would change the shape"):
        getattr(PartialStep().late(), name)(*([0, 1] if name in ("transpose_", "resize_") else [0] * (name != "t_")))


def test_views_are_late_and_read_their_rows() -> None:
    for view in (
        lambda z: z[..., :2],
        lambda z: z[:, :, 1],
        lambda z: z.view(-1, V),
        lambda z: z[None],
        lambda z: z[:, 1:],
        lambda z: z[0],
        lambda z: z.chunk(2)[1],
        lambda z: z.movedim(1, 0),
    ):
        step = PartialStep()
        z = view(step.late())
        assert isinstance(z, LateTensor)
        assert step.last is None
        exact = view(step.exact())
        assert z.shape == exact.shape
        assert z.is_contiguous() == exact.is_contiguous()
        index = torch.zeros(z.shape[: 1 if z.shape[0] > B else 2], dtype=torch.bool)
        index.view(-1)[::3] = True
        assert torch.equal(z[index], exact[index])
        assert 0 < int(step.done.sum()) < B * N


def test_a_slice_of_few_rows_reads_them() -> None:
    step = PartialStep()
    assert torch.equal(step.late()[:, 2:4], step.value[:, 2:4])
    assert step.done.nonzero()[:, 1].unique().tolist() == [2, 3]


@pytest.mark.parametrize("records", [True, False])
def test_what_mixes_rows_is_written_with_late_arguments(records: bool) -> None:
    step = PartialStep()
    step.read(torch.ones(B, N, dtype=torch.bool))
    with torch.no_grad():
        late, plain = step.late(records=records), step.exact()
        for own in (late, plain):
            own.masked_scatter_(own > 1, own.flip(-1))
            own[own[..., 0] > 0] += 1
        assert torch.equal(resolved(late), plain)


def test_a_late_mask_agrees_with_the_rows_that_it_names() -> None:
    """It was read as a whole, with old rows; of those that it named some turn out to be none."""
    step = PartialStep()
    late = step.late()
    with torch.no_grad():
        below = torch.where(late[..., 0] > 0, 0.0, late[..., 1].abs() + 1)
        mask = below > 0
        before = mask.sum()
        named = below[mask]
        stale, exact = step.stale[..., 0] <= 0, step.value[..., 0] <= 0
        assert before == stale.sum()
        assert bool((named > 0).all())
        assert torch.equal(resolved(mask), stale & exact)
        assert torch.equal(named, step.value[..., 1].abs()[stale & exact] + 1)
        written, positions = torch.zeros(B, N, dtype=torch.float64), mask.nonzero()
        written[mask] = named
        assert torch.equal(positions, written.nonzero())


def test_what_a_step_was_given_stays_as_it_saw_it() -> None:
    """And so nothing that it was computed of is computed again, however many calls it goes through."""
    step = PartialStep()
    with torch.no_grad():
        late: Any = step.late() * 2
        seen = given_values(late).clone()
        assert torch.equal(seen, step.stale * 2)
        assert torch.equal(late[MASK], seen[MASK])
        assert isinstance(late.late.memory.expression, Given)
