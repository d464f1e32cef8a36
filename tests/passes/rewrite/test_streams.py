"""Several streams of tokens, joined for attention and cut again."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.ops import join_positions
from marche_fx.passes.capture.capture import capture
from tests.program import Program

aten = torch.ops.aten

Cut = Callable[[Tensor], tuple[Tensor, ...]]

TEXT, IMAGE, WIDTH = 3, 5, 8


class JointAttention(nn.Module):
    """Text ``[B, 3, D]`` and image ``[B, 5, D]`` attend to each other; ``cut`` takes them apart again."""

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.cut = cut
        self.text, self.image = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        for _ in range(2):
            q, k, v = torch.cat([self.text(text), self.image(image)], 1).chunk(3, -1)
            parts = self.cut(F.scaled_dot_product_attention(q, k, v))
            text, image = (x + out(part) for x, out, part in zip((text, image), self.out, parts))
        return text, image


def sliced(x: Tensor) -> tuple[Tensor, ...]:
    return x[:, :TEXT], x[:, TEXT:]


def counted_from_the_end(x: Tensor) -> tuple[Tensor, ...]:
    return x[:, :-IMAGE], x[:, -IMAGE:]


def split(x: Tensor) -> tuple[Tensor, ...]:
    return x.split([TEXT, IMAGE], 1)


def every_third(x: Tensor) -> tuple[Tensor, ...]:
    """Not the streams: some tokens of both."""
    return x[:, ::3], torch.cat([x[:, ::2], x[:, :1]], 1)


def check(program: Program) -> None:
    """Equality with the oracle over steps with different active tokens in the two streams."""
    assert program.plan.axes.lengths == (TEXT, IMAGE)
    generator = torch.Generator().manual_seed(0)
    oracle = program.oracle()
    for text_count, image_count in [(TEXT, IMAGE), (1, 2), (2, 1), (1, 1)]:
        inputs = [torch.randn(2, tokens, WIDTH, dtype=torch.float64, generator=generator) for tokens in (TEXT, IMAGE)]
        text = torch.stack([torch.randperm(TEXT, generator=generator)[:text_count] for _ in range(2)])
        image = torch.stack([torch.randperm(IMAGE, generator=generator)[:image_count] for _ in range(2)])
        own, expected = program.step(inputs, text, image), oracle.step(inputs, torch.cat([text, TEXT + image], 1))
        for result, other in zip(own, expected):
            torch.testing.assert_close(result, other, rtol=1e-10, atol=1e-10)


def program_of(cut: Cut) -> Program:
    model = JointAttention(cut).double().eval()
    return Program(model, "forward", [torch.zeros(2, tokens, WIDTH, dtype=torch.float64) for tokens in (TEXT, IMAGE)])


@pytest.mark.parametrize("cut", [sliced, counted_from_the_end, split])
def test_streams_that_are_cut_apart_stay_rows(cut: Cut) -> None:
    program = program_of(cut)
    assert not program.plan.in_full
    assert not program.plan.region.full
    check(program)


def test_a_cut_in_steps_takes_no_stream() -> None:
    program = program_of(every_third)
    assert program.plan.region.full
    check(program)


def test_the_parts_of_a_split_are_slices() -> None:
    graph = capture(JointAttention(split).eval(), "forward", tuple(torch.zeros(2, n, WIDTH) for n in (TEXT, IMAGE)))
    targets = {node.target for node in graph.graph_module.graph.nodes}
    assert operator.getitem not in targets
    assert torch.ops.aten.slice.Tensor in targets


class MixedBeforeTheCut(JointAttention):
    """What attention gave runs in full once more before it is cut into streams, which attend to a memory."""

    def __init__(self, cut: Cut) -> None:
        super().__init__(cut)
        self.memory = nn.Parameter(torch.randn(4, WIDTH))

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        streams, memory = super().forward(text, image), self.memory.expand(len(text), -1, -1)
        q, k, v = torch.cat([self.text(x) for x in streams], 1).chunk(3, -1)
        parts = self.cut(F.scaled_dot_product_attention(q, k, v).softmax(1))
        streams = tuple(x + part for x, part in zip(streams, parts))
        return tuple(F.scaled_dot_product_attention(x, memory, memory) for x in streams)


def test_rows_that_are_read_of_a_value_in_full_are_those_of_the_streams() -> None:
    model = MixedBeforeTheCut(sliced).double().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, tokens, WIDTH, dtype=torch.float64, generator=generator) for tokens in (TEXT, IMAGE)]
    program = Program(model, "forward", inputs, skip_unread=True)
    assert any(node.target is aten.slice.Tensor for node in program.split.read_only)
    oracle, every = program.oracle(), [torch.arange(tokens).expand(2, tokens) for tokens in (TEXT, IMAGE)]
    for read in ([own.flip(1) for own in every], [own[:, :2] for own in every]):
        positions = [own.gather(1, some) for own, some in zip(every, read)]
        expected = oracle.step(inputs, join_positions(every, (TEXT, IMAGE)), join_positions(positions, (TEXT, IMAGE)))
        for result, other in zip(program.step(inputs, *every, read=read), expected):
            torch.testing.assert_close(result, other, rtol=1e-10, atol=1e-10)
