"""What `transform` refuses, at once or at the first call."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError, UnsupportedModelError
from tests.networks import Transformer


class TokenMixer(nn.Module):
    """No attention: tokens and channels are transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tokens(x.transpose(1, 2)).transpose(1, 2)


def test_a_model_without_attention_is_refused_and_the_mixer_named() -> None:
    optimized = marche_fx.transform(TokenMixer().eval())
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match=r"no attention.*linear at tokens") as error:
        optimized(torch.ones(1, 6, 8))
    assert "test_transform.py" in str(error.value)


def test_training_mode_is_refused() -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2).train())
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match="training mode"):
        optimized(torch.ones(1, 6, 8))


def test_training_mode_set_through_the_transformed_model_is_refused() -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2).eval())
    optimized.train()
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match="training mode"):
        optimized(torch.ones(1, 6, 8))


def test_gradients_are_refused() -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2).eval())
    with pytest.raises(UnsupportedModelError, match="no_grad"):
        optimized(torch.ones(1, 6, 8))


@pytest.mark.parametrize("options", [{"step": "forwards"}, {"step": ()}, {"loop": "generate"}])
def test_a_method_that_does_not_exist_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"forwards|generate|at least one"):
        marche_fx.transform(Transformer(6, 8, 2).eval(), **options)


@pytest.mark.parametrize(
    "answer",
    [
        torch.ones(1, 5, dtype=torch.bool),
        torch.ones(1, 6),
        None,
    ],
    ids=["shape", "dtype", "type"],
)
def test_a_query_of_the_wrong_kind_is_refused(answer: Any) -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2, depth=1).eval(), query=lambda x: answer, compile=False)
    with torch.no_grad(), pytest.raises(ArgumentError, match=r"bool tensor \(1, 6\)"):
        optimized(torch.ones(1, 6, 8))


def test_other_objects_are_refused() -> None:
    model = Transformer(6, 8, 2).eval()
    with pytest.raises(ArgumentError, match="Module"):
        marche_fx.transform(lambda x: x)  # type: ignore[type-var]
    with pytest.raises(ArgumentError, match="already transformed"):
        marche_fx.transform(marche_fx.transform(model))
    with pytest.raises(ArgumentError, match="refresh policy"):
        marche_fx.transform(model, refresh=0.1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="callable"):
        marche_fx.transform(model, query=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="not made by"), marche_fx.decoding(model):
        pass


class Forgetful(nn.Module):
    """Differs from call to call, which no rewrite can reproduce."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Transformer(6, 8, 2, depth=1)
        self.calls = itertools.count(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * next(self.calls)


def test_verification_catches_a_step_that_the_graph_does_not_repeat() -> None:
    optimized = marche_fx.transform(Forgetful().eval(), compile=False)
    with torch.no_grad(), pytest.raises(marche_fx.EquivalenceError, match="differs from the original"):
        optimized(torch.randn(1, 6, 8))
