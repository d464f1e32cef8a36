"""Models that drop masked tokens, and put others in their place before, between or after their blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from tests.networks import Block, FusedAttention, Mlp

TOKENS, WIDTH, BLOCKS = 12, 16, 2


class Drops(nn.Module):
    """Drops hidden tokens and puts blanks in their place before block ``put_back``; never where there is none.

    ``is_scaled`` says whether the tokens depend on what is hidden too.
    """

    def __init__(self, put_back: int, *, is_scaled: bool) -> None:
        super().__init__()
        self.put_back, self.is_scaled = put_back, is_scaled
        self.enter = nn.Linear(8, WIDTH)
        self.blank, self.place = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList(Block(WIDTH, FusedAttention(WIDTH, 2, TOKENS), Mlp(WIDTH)) for _ in range(BLOCKS))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        x, kept = self.enter(x), (1 - hidden).nonzero(as_tuple=True)
        x = x * (1 - hidden)[..., None] if self.is_scaled else x
        x = x[kept].reshape(len(x), -1, WIDTH)
        for number, block in enumerate(self.blocks):
            x = block(self.whole(x, kept) if number == self.put_back else x)
        return self.whole(x, kept) if self.put_back == BLOCKS else x

    def whole(self, x: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        whole = (self.blank + self.place).expand(len(x), -1, -1).clone()
        whole[kept] = x.reshape(-1, WIDTH)
        return whole


def hidden_tokens(samples: int, count: int, generator: torch.Generator) -> Tensor:
    order = torch.rand(samples, TOKENS, generator=generator).argsort(-1)
    return torch.zeros(samples, TOKENS).scatter(1, order[:, :count], 1.0)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("put_back", [0, 1, BLOCKS, BLOCKS + 1])
@torch.no_grad()
def test_dropped_tokens_are_computed_where_others_take_their_place(
    put_back: int, is_scaled: bool, samples: int
) -> None:
    torch.manual_seed(0)
    model, generator = Drops(put_back, is_scaled=is_scaled).eval(), torch.Generator().manual_seed(0)
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        for count in (9, 6, 3):
            x, hidden = torch.randn(samples, TOKENS, 8, generator=generator), hidden_tokens(samples, count, generator)
            torch.testing.assert_close(optimized(x, hidden) + 0, model(x, hidden), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_hidden_tokens_that_are_put_back_can_be_read_alone() -> None:
    torch.manual_seed(0)
    model, generator = Drops(1, is_scaled=False).eval(), torch.Generator().manual_seed(0)
    optimized, x = marche_fx.transform(model, compile=False), torch.randn(2, TOKENS, 8, generator=generator)
    hidden = hidden_tokens(2, 6, generator)
    with marche_fx.decoding(optimized):
        for _ in range(6):
            found, expected = optimized(x, hidden)[hidden > 0], model(x, hidden)[hidden > 0]
            torch.testing.assert_close(found + 0, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("put_back", [0, 1, BLOCKS, BLOCKS + 1])
@torch.no_grad()
def test_a_capture_may_begin_with_one_sample_of_few_kept_tokens(put_back: int, kept: int) -> None:
    torch.manual_seed(0)
    model, generator = Drops(put_back, is_scaled=False).eval(), torch.Generator().manual_seed(0)
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        for count in (TOKENS - kept, 6, 3):
            x, hidden = torch.randn(1, TOKENS, 8, generator=generator), hidden_tokens(1, count, generator)
            torch.testing.assert_close(optimized(x, hidden) + 0, model(x, hidden), rtol=1e-4, atol=1e-5)
