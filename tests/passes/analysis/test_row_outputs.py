"""Results by rows, and such as have no elements at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import marche_fx
from tests.around import MOVED, X, transformer


class WithKeys(nn.Module):
    """Returns keys of its first tokens, as a step does that can keep some of them: here of ``kept``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()

    def forward(self, x: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        rows = self.inner(x)
        return rows, rows[:, :kept]


@torch.no_grad()
def test_a_result_without_elements_waits_as_others_do() -> None:
    model = WithKeys().eval().requires_grad_(False)
    optimized = marche_fx.transform(model, compile=False)
    with marche_fx.decoding(optimized):
        for x in (X, MOVED, X):
            rows, keys = optimized(x, 0)
            assert keys.clone().shape == (len(X), 0, rows.shape[-1])
            assert rows[:, 3].shape == model(x, 0)[0][:, 3].shape
    session = marche_fx.report(optimized).session
    assert session is not None
    assert all(count is not None for cause in session.causes for _, count, _ in cause.reads)


@torch.no_grad()
def test_a_result_without_elements_equals_the_original_s_in_full() -> None:
    model = WithKeys().eval().requires_grad_(False)
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        for x in (X, MOVED):
            for ours, original in zip(optimized(x, 0), model(x, 0), strict=True):
                assert torch.equal(ours.clone(), original)
