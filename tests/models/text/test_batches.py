from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from marche_fx.models.text.batches import draw_batch
from marche_fx.models.text.training import masked_loss

from .tiny import RECIPE, tiny_corpus, tiny_model

CORPUS = tiny_corpus()
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
"""Operators whose result, or its size, a device has to tell the host."""


class Called(TorchDispatchMode):
    """The names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_step_of_the_same_number_is_the_same_batch_and_another_one_is_not() -> None:
    first, again, other = (draw_batch(CORPUS, replace(RECIPE, lengths=(16,)), step) for step in (3, 3, 4))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.mask, other.mask)


@settings(max_examples=25, deadline=None)
@given(step=st.integers(0, 10**6), batch=st.integers(1, 2000), length=st.integers(1, 200), seed=st.integers(0, 9))
def test_the_host_knows_how_many_pieces_are_masked_and_the_device_where(
    step: int, batch: int, length: int, seed: int
) -> None:
    drawn = draw_batch(CORPUS, replace(RECIPE, batch=batch, lengths=(length,), seed=seed), step)
    assert drawn.ids.shape == drawn.mask.shape == (max(1, batch // length), length)
    assert drawn.mask.any(-1).all()
    assert torch.equal(drawn.places(), drawn.mask.flatten().nonzero()[:, 0])


def test_the_loss_and_its_gradients_have_nothing_to_wait_for() -> None:
    model, batch = tiny_model(), draw_batch(CORPUS, RECIPE, 0)
    with Called() as called:
        masked_loss(model, batch).backward()
    assert "nonzero_static" in called.names
    assert called.names.isdisjoint(WAITING)
