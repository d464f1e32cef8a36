"""Which image shows what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from marche_fx import ArgumentError
from marche_fx.sampling.labels import classes_of, labels_of
from tests.sampling.tiny import Flat


@given(st.integers(1, 50), st.integers(0, 9), st.integers(1, 12))
def test_balanced_labels_are_as_even_as_can_be_and_those_of_their_number(count: int, more: int, classes: int) -> None:
    found = labels_of("balanced", count, count + more, classes)
    assert found is not None
    counts = found[:count].bincount(minlength=classes)
    assert counts.max() - counts.min() <= 1
    longer = labels_of("balanced", 2 * count, 2 * count + more, classes)
    assert longer is not None
    assert torch.equal(found, longer[: len(found)]), "however many images are asked for"


def test_given_labels_are_kept_and_go_on_from_the_start_in_the_last_share() -> None:
    found = labels_of([4, 2, 6], 3, 5, 7)
    assert found is not None
    assert found.tolist() == [4, 2, 6, 4, 2]
    assert labels_of(None, 3, 5, 7) is None


REFUSED: list[tuple[Any, int | None, str]] = [
    ("even", 7, "labels must be 'balanced'"),
    ("balanced", None, "has no num_classes"),
    ([1, 2], 7, r"a label for each of 3 images, got the shape \[2\]"),
    ([[1, 2, 3]], 7, r"got the shape \[1, 3\]"),
    ([1, 2, 7], 7, "of which there are 7; got 1 to 7"),
    ([-1, 2, 3], None, "got -1 to 3"),
    ([0.5, 1, 2], 7, "whole numbers"),
    ([True, False, True], 7, "whole numbers"),
    (["a", "b", "c"], 7, "whole numbers"),
    (object(), 7, "whole numbers"),
]


@pytest.mark.parametrize(("labels", "classes", "told"), REFUSED)
def test_labels_that_do_not_fit_are_refused(labels: Any, classes: int | None, told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        labels_of(labels, 3, 4, classes)


def test_the_number_of_classes_is_the_models_unless_it_is_given() -> None:
    assert classes_of(Flat(), None) == 7
    assert classes_of(Flat(), 3) == 3
    assert classes_of(nn.Linear(1, 1), None) is None
    with pytest.raises(ArgumentError, match="classes must be"):
        classes_of(Flat(), 0)
