"""Plain values that a step leaves in attributes, as the height and width of a picture: there after each call."""

from __future__ import annotations

import itertools
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from tests.around import WIDTH
from tests.networks import Block, FusedAttention, Mlp

SIZES = [(8, 8), (4, 16), (8, 8), (2, 32), (4, 8), (4, 16)]
"""Heights and widths, some of which are as many tokens."""


def block() -> Block:
    """Of tokens of any number."""
    return Block(WIDTH, FusedAttention(WIDTH, 2, 0), Mlp(WIDTH))


class Patches(nn.Module):
    """Leaves the size of the pictures that it takes apart, and may use what it left itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, WIDTH)
        self.size: Any = None

    def forward(self, pictures: Tensor) -> Tensor:
        self.size = pictures.shape[2:]
        tokens: Tensor = self.embed(pictures.flatten(2).transpose(1, 2))
        return tokens / (self.size[0] + self.size[1])


class Painter(nn.Module):
    """Two steps of which the one leaves numbers that the other and the loop read."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = Patches()
        self.inner = block()
        self.out = nn.Linear(WIDTH, 4)

    def encode(self, pictures: Tensor) -> Tensor:
        self.height, self.width = pictures.shape[2:]
        tokens: Tensor = self.inner(self.patches(pictures))
        return tokens

    def decode(self, tokens: Tensor) -> Tensor:
        pixels: Tensor = self.out(self.inner(tokens)) * self.height
        return pixels

    def pixels(self, tokens: Tensor) -> Tensor:
        height, width = self.patches.size
        assert (height, width) == (self.height, self.width)
        return tokens.transpose(1, 2).reshape(-1, 4, height, width)

    @torch.no_grad()
    def sample(self, height: int, width: int, steps: int = 3) -> Tensor:
        pictures = torch.zeros(1, 4, height, width)
        for step in range(steps):
            found = self.pixels(self.decode(self.encode(pictures)))
            pictures = pictures.clone()
            pictures[:, :, step % height, step % width] = found[:, :, step % height, step % width] + 1
        return pictures


def painter() -> Painter:
    torch.manual_seed(0)
    return Painter().eval().requires_grad_(False)


def optimized_painter(model: Painter) -> Any:
    return marche_fx.transform(model, step=("encode", "decode"), loop="sample", refresh="exact", compile=False)


@pytest.mark.parametrize("is_known", [False, True])
def test_what_a_step_leaves_is_of_the_call_before_at_every_size(is_known: bool) -> None:
    model, exact = painter(), painter()
    if is_known:
        # What the original leaves is there, and the same as that of the first call.
        model.sample(*SIZES[0])
    optimized = optimized_painter(model)
    for size in SIZES:
        torch.testing.assert_close(optimized.sample(*size), exact.sample(*size))
        assert (optimized.height, optimized.width, optimized.patches.size) == (*size, torch.Size(size))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.filterwarnings("ignore:a saved capture of Painter.decode is not used. 'height'")
def test_captures_of_another_process_leave_it_too(first: int, tmp_path: Path) -> None:
    saved, exact = optimized_painter(painter()), painter()
    saved.sample(*SIZES[0])
    marche_fx.save_captures(saved, tmp_path / "captures")
    optimized = optimized_painter(painter())
    assert marche_fx.load_captures(optimized, tmp_path / "captures")
    for size in SIZES[first : first + 3]:
        torch.testing.assert_close(optimized.sample(*size), exact.sample(*size))


class Counts(nn.Module):
    """Two steps; the first leaves another number in each call, which the second reads or does not."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.inner, self.reads = block(), reads

    def encode(self, x: Tensor) -> Tensor:
        self.positive = int((x > 0).sum())
        tokens: Tensor = self.inner(x)
        return tokens

    def decode(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.inner(x)
        return tokens * self.positive if self.reads else tokens


@pytest.mark.parametrize("reads", [False, True])
@torch.no_grad()
def test_a_number_that_another_step_left_is_that_of_the_call(reads: bool) -> None:
    torch.manual_seed(0)
    model = Counts(reads).eval().requires_grad_(False)
    optimized = marche_fx.transform(model, step=("encode", "decode"), refresh="exact", compile=False)
    with warnings.catch_warnings(record=True, action="always") as caught, marche_fx.decoding(optimized):
        for number in (0, 1, 2, 1):
            x = torch.zeros(1, 16, WIDTH)
            x[0, : number + 1] = 1
            torch.testing.assert_close(optimized.decode(optimized.encode(x)), model.decode(model.encode(x)))
    assert not [own for own in caught if "changed inside" in str(own.message)]


CALLS = itertools.count()


class Marks(nn.Module):
    """Leaves a number in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner, self.seen = how, block(), 0
        self.mark: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "size":
            self.mark = (x.shape[1], "tokens")
        elif self.how == "list":
            self.mark = []
            self.mark.append({"rows": x.shape[1]})
        elif self.how == "again":
            self.mark = 0
            self.mark = self.mark + x.shape[1]
        elif self.how == "asked":
            self.mark = int((x > 0).sum())
        elif self.how == "clock":
            self.mark = time.perf_counter()
        elif self.how == "count":
            self.mark = next(CALLS)
        elif self.how == "computed":
            y: Tensor = self.inner(x)
            self.mark = y.sum().item()
            return y
        elif self.how == "weight":
            self.mark = self.inner.get_parameter("norm1.weight").sum().item()
        z: Tensor = self.inner(x)
        return z


@torch.no_grad()
def told_of(how: str) -> tuple[list[str], bool]:
    """The messages, and whether what was left was always the original's."""
    model = Marks(how).eval().requires_grad_(False)
    optimized, x, is_there = marche_fx.transform(model, refresh="exact", compile=False), torch.zeros(1, 6, WIDTH), True
    with warnings.catch_warnings(record=True, action="always") as caught, marche_fx.decoding(optimized):
        for number in range(4):
            x = x.clone()
            x[0, number] += 1
            optimized(x).sum()
            model(x)
            is_there &= optimized.mark == model.mark
    return [str(own.message) for own in caught if "leaves" in str(own.message)], is_there


@pytest.mark.parametrize("how", ["size", "list", "again", "asked"])
def test_what_each_call_of_a_kind_leaves_is_there(how: str) -> None:
    assert told_of(how) == ([], True)


@pytest.mark.parametrize("how", ["clock", "count", "computed", "weight"])
def test_what_is_another_number_in_each_call_is_told_of(how: str) -> None:
    (message,), _ = told_of(how)
    assert message.startswith("Marks.forward leaves what it computes in 'mark' (test_left_values.py:")
