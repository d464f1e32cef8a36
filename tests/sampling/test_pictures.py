"""What a loop returned."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marche_fx import SamplingError
from marche_fx.sampling.pictures import as_pixels, channels_last, checked, from_pixels


def test_pixels_are_the_nearest_bytes_and_what_lies_outside_is_cut_off() -> None:
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    assert as_pixels(images).flatten().tolist() == [0, 0, 128, 255, 255]
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(as_pixels(from_pixels(every)), every)
    assert torch.equal(as_pixels(every), every)


def test_channels_come_last() -> None:
    assert channels_last(torch.zeros(2, 3, 4, 5, dtype=torch.uint8)).shape == (2, 4, 5, 3)


NONE = torch.full((2, 1, 4, 4), torch.nan)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.zeros(2, 16, 4, 4), "Decode latents"),
        (torch.zeros(2, 4, 4), "Decode latents"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), "Decode latents"),
        (NONE, "not finite"),
        (NONE.nan_to_num(torch.inf), "not finite"),
    ],
)
def test_what_is_no_picture_is_refused(images: torch.Tensor, told: str) -> None:
    with pytest.raises(SamplingError, match=told):
        as_pixels(images)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ([1, 2], "got list"),
        (torch.zeros(3, 1), "asked for 2 images, those of share.numbers, and returned 3"),
        (torch.zeros(()), "returned one number"),
    ],
)
def test_another_number_of_images_is_refused(result: Any, told: str) -> None:
    with pytest.raises(SamplingError, match=told):
        checked(result, 2)
