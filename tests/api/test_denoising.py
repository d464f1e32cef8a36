"""`transform(model, denoising=...)`: on the copy, in the model's own loop and in one of the user's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError, Denoising, UnsupportedModelError
from marche_fx.models import MAR
from tests.denoising.heads import randomised
from tests.denoising.official import OfficialHead
from tests.models.tiny import noise_for, tiny_mar

LABELS = torch.tensor([0, 1])


class OfficialInLoop(OfficialHead):
    """The official head takes no noise of the loop's."""

    def sample(self, z: Tensor, temperature: float = 1.0, cfg: float = 1.0, **_: Any) -> Tensor:
        return super().sample(z, temperature, cfg)


def bundled_mar(steps: int = 8) -> MAR:
    return tiny_mar(num_sampling_steps=steps, token_limit=1.0)


def official_mar(steps: int = 8) -> MAR:
    model: Any = tiny_mar().float()
    model.diffloss = randomised(OfficialInLoop(4, 16, steps))
    return model


def transformed(model: MAR, denoising: Any, **options: Any) -> MAR:
    return marche_fx.transform(model, refresh="exact", denoising=denoising, **{"compile": False, **options})


@torch.inference_mode()
def generate(model: Any, steps: int = 4, **options: Any) -> Tensor:
    torch.manual_seed(0)
    orders, noise = noise_for(bundled_mar(), 2)
    found: Tensor = model.sample_tokens(2, steps, 3.0, labels=LABELS, orders=orders, noise=noise, **options)
    return found


def evaluations(model: MAR, run: Any) -> list[int]:
    """How often the network runs in each call of the head."""
    counts: list[int] = []
    head = model.diffloss
    hook = head.net.time_embed.register_forward_pre_hook(lambda *_: counts.append(counts.pop() + 1))
    kind: Any = type(head)
    sample = kind.sample

    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        counts.append(0)
        found: Tensor = sample(self, *args, **kwargs)
        return found

    kind.sample = counted
    try:
        run()
    finally:
        kind.sample = sample
        hook.remove()
    return counts


@pytest.mark.parametrize("model", [bundled_mar, official_mar])
def test_the_models_own_steps_give_its_images(model: Any) -> None:
    mar = model()
    torch.testing.assert_close(generate(transformed(mar, Denoising(8))), generate(mar), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [bundled_mar, official_mar])
def test_the_copy_denoises_as_asked_and_the_original_as_before(model: Any) -> None:
    mar = model()
    before = generate(mar)
    own = transformed(mar, Denoising(3))
    assert evaluations(mar, lambda: generate(own)) == [3] * 4
    assert evaluations(mar, lambda: generate(mar)) == [8] * 4
    assert torch.equal(generate(mar), before)


def test_a_head_with_faster_products_denoises_as_asked_too() -> None:
    mar = bundled_mar().float()
    own = marche_fx.transform(mar, denoising=Denoising(3))
    assert len(own.diffloss.gen_diffusion) == 3
    z, noise = torch.randn(2, 16), torch.randn(8, 2, 4)
    expected = transformed(mar, Denoising(3)).diffloss.sample(z, noise=noise)
    with torch.no_grad():
        torch.testing.assert_close(own.diffloss.sample(z, noise=noise), expected)


@pytest.mark.parametrize("model", [bundled_mar, official_mar])
def test_steps_fall_over_the_decoding_of_every_call_of_the_loop(model: Any) -> None:
    mar = model()
    own = transformed(mar, Denoising(anneal=(8, 2)))
    for _ in range(2):
        assert evaluations(mar, lambda: generate(own)) == [8, 6, 4, 2]
    assert evaluations(mar, lambda: generate(own, 2)) == [8, 2]
    with torch.no_grad():
        assert evaluations(mar, lambda: own.sample_tokens(bsz=2, num_iter=3)) == [8, 5, 2]


def test_two_generations_side_by_side_count_their_own_steps() -> None:
    mar = bundled_mar()
    own = transformed(mar, Denoising(anneal=(8, 2), decoding_steps=2))
    first, second = marche_fx.session(own), marche_fx.session(own)
    z = torch.zeros(2, 16, dtype=torch.float64)

    def drawn(session: Any) -> int:
        with session:
            return evaluations(mar, lambda: own.diffloss.sample(z))[0]

    assert [drawn(first), drawn(second), drawn(first), drawn(second)] == [8, 8, 2, 2]
    with pytest.raises(ArgumentError, match="called more often than the 2 times"):
        drawn(first)


def test_annealing_asks_for_what_it_must_know() -> None:
    own, z = transformed(bundled_mar(), Denoising(anneal=(8, 2))), torch.zeros(2, 16, dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"outside of one.*decoding"):
        own.diffloss.sample(z)
    with marche_fx.decoding(own), pytest.raises(ArgumentError, match=r"num_iter.*decoding_steps"):
        own.diffloss.sample(z)


def test_a_word_says_it_too() -> None:
    mar = bundled_mar()
    own = transformed(mar, "quadratic:3")
    assert torch.equal(generate(own), generate(transformed(mar, Denoising(3, "quadratic"))))


@pytest.mark.parametrize("asked", [25, {"steps": 25}, [Denoising(3)]])
def test_what_is_no_denoising_is_refused(asked: Any) -> None:
    with pytest.raises(ArgumentError, match="denoising must be a Denoising"):
        transformed(bundled_mar(), asked)


def test_more_steps_than_the_schedule_has_are_refused_before_anything_runs() -> None:
    with pytest.raises(ArgumentError, match=r"must lie in 2..1000, got 1001"):
        transformed(bundled_mar(), Denoising(1001))


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"TransformerEncoderLayer has none that is known.*head=\.\.\."):
        marche_fx.transform(nn.TransformerEncoderLayer(8, 2).eval(), denoising=Denoising(3))


def test_a_head_that_is_no_denoiser_is_refused() -> None:
    model: Any = nn.TransformerEncoderLayer(8, 2).eval()
    with pytest.raises(UnsupportedModelError, match="the diffusion of Linear is not known"):
        marche_fx.transform(model, head="linear1", denoising=Denoising(3))


def test_a_solver_refuses_a_temperature_in_the_loop() -> None:
    own = transformed(bundled_mar(), Denoising(3, solver="ddim"))
    with pytest.raises(ArgumentError, match="adds no noise"):
        generate(own, temperature=0.8)
    assert generate(own).isfinite().all()
