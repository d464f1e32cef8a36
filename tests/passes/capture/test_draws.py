"""Random numbers that a step draws though nothing reads them: whoever draws next draws as after the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import FullRefresh, UnsupportedModelError
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.draws import Draw
from tests.networks import Transformer

N, D = 12, 16


class DropsLabels(nn.Module):
    """A class's token before those of a picture, dropped at random, as models are called that learnt guidance so."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Embedding(9, D)
        self.classes = nn.Embedding(4, D)
        self.net = Transformer(N + 1, D, 2, depth=2)

    def forward(self, ids: Tensor, label: Tensor, dropped: float = 0.1) -> Tensor:
        label = torch.where(torch.rand_like(label, dtype=torch.float) < dropped, 3, label)
        x = torch.cat([self.classes(label)[:, None], self.pieces(ids)], dim=1)
        return self.net(x)[:, 1:]

    def generate(self, samples: int) -> Tensor:
        ids = torch.zeros(samples, N, dtype=torch.long)
        for step in range(6):
            logits = 2 * self(ids, torch.arange(samples), 0.0) - self(ids, torch.arange(samples), 1.0)
            drawn = logits.softmax(-1).flatten(0, 1).multinomial(1).view(samples, N) % 9
            ids = torch.where(torch.arange(N) // 2 == step, drawn, ids)
        return ids


def made() -> Any:
    torch.manual_seed(0)
    return DropsLabels().eval().requires_grad_(False)


def generated(model: Any, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pieces, and what is drawn after them."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.generate(samples), torch.rand(())


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("verify", [True, False])
def test_a_generation_draws_what_the_original_draws(samples: int, verify: bool) -> None:
    model = made()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), loop="generate", compile=False, verify=verify)
    for seed in range(3):
        found, expected = generated(optimized, samples, seed), generated(model, samples, seed)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_captures_in_a_file_draw_too(tmp_path: Path) -> None:
    model = made()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), loop="generate", compile=False)
    generated(optimized, 2, 0)
    marche_fx.save_captures(optimized, tmp_path / "steps")
    again = marche_fx.transform(made(), refresh=FullRefresh(), loop="generate", compile=False)
    assert marche_fx.load_captures(again, tmp_path / "steps")
    assert torch.equal(generated(again, 2, 1)[1], generated(model, 2, 1)[1])


def test_a_capture_tells_what_it_draws() -> None:
    ids, label = torch.zeros(2, N, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    found = capture(made(), "forward", (ids, label, 0.0))
    assert found.draws == (Draw((2,), torch.float32, torch.device("cpu")),)
    with pytest.raises(UnsupportedModelError, match="draws random numbers"):
        capture(made(), "forward", (ids, label, 0.5))


@torch.no_grad()
def test_branches_of_guidance_have_streams_of_their_own_where_a_class_is_a_token() -> None:
    optimized = marche_fx.transform(made(), loop="generate", compile=False)
    optimized.generate(2)
    session = marche_fx.report(optimized).session
    assert session is not None
    assert session.streams == 2


class DrawsForKept(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x[~mask].view(len(x), -1, D)
        return x * (torch.rand_like(x) >= 0.0)


def test_draws_for_as_many_tokens_as_are_kept_are_refused() -> None:
    mask = torch.arange(N).expand(2, N) > 5
    with pytest.raises(UnsupportedModelError, match=r"draws random numbers in aten\.rand_like"):
        capture(DrawsForKept(), "forward", (torch.randn(2, N, D), mask))
