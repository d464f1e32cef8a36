import pytest
import torch
from torch import Tensor

from marche_fx.evaluate.study.generation import Decoder
from marche_fx.evaluate.tokens import LOOPS, VARIANTS

from .short import GARMENTS, short

MODEL = GARMENTS.maskgit


class Counting:
    mask_id, no_label, tokens = MODEL.mask_id, MODEL.no_label, MODEL.tokens

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = MODEL(ids, labels)
        return found


def test_loops_have_the_steps_that_they_are_named_by() -> None:
    assert {name: loop.calls for name, loop in LOOPS.items()} == {"32-steps": 32, "16-steps": 16}


def test_a_loop_calls_the_model_as_often_as_it_says() -> None:
    loop, model = short(), Counting()
    codes = loop.decode(model, loop.labels, seed=1)
    assert codes.shape == (4, loop.tokens)
    assert (codes != model.mask_id).all()
    assert model.calls == loop.calls == 8
    loop.decode(model, loop.labels, seed=1, fewer=4)
    assert model.calls == 10


def test_all_classes_take_turns_and_more_images_change_none_of_the_first() -> None:
    assert LOOPS["32-steps"].labels[:12].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_exact_codes_are_the_originals_with_the_same_noise(guidance: float) -> None:
    loop = short(guidance=guidance)
    original, exact = (Decoder(MODEL, loop, VARIANTS[own]).decode(loop.labels, seed=3) for own in ("original", "exact"))
    assert torch.equal(original.answers, exact.answers)
    assert (exact.rows, exact.results, exact.flops) == (1, 1, 1)


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_a_bound_is_a_bound_with_and_without_guidance(guidance: float) -> None:
    """Three steps in full, then a fifth at most, what was written and the room that shapes leave."""
    loop = short(guidance=guidance)
    found = Decoder(MODEL, loop, VARIANTS["neighbours 5%, bounded"]).decode(loop.labels, seed=3)
    assert 3 / 8 < found.rows < 3 / 8 + 5 / 8 * 0.4
    assert found.results < found.rows


def test_schedules_that_take_results_whole_decode_every_code() -> None:
    loop = short()
    for name in ("dLLM-Cache", "ML-Cache"):
        found = Decoder(MODEL, loop, VARIANTS[name]).decode(loop.labels, seed=3)
        assert (found.answers != MODEL.mask_id).all()
        assert found.rows < 1
