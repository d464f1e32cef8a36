import pytest
import torch

from marche_fx.evaluate.text import LOOPS, Loop

from .short import MODEL, short

MASK = MODEL.mask_id
SMALL = Loop("small", prompts=1, prompt=2, answer=6, block=3, steps=3)
IDS = torch.tensor([[5, 6, 7, MASK, 8, MASK, MASK, MASK], [5, 6, MASK, MASK, 8, MASK, MASK, MASK]])


def test_a_block_is_where_the_first_mask_is() -> None:
    assert SMALL.in_block(MASK)(IDS).tolist() == [[False] * 2 + [True] * 3 + [False] * 3] * 2
    second = IDS.clone()
    second[:, 2:5] = 9
    assert SMALL.in_block(MASK)(second).tolist() == [[False] * 5 + [True] * 3] * 2


def test_the_loop_reads_the_masks_of_its_block() -> None:
    found = SMALL.masked_in_block(MASK)(IDS)
    assert [own.nonzero().flatten().tolist() for own in found] == [[3], [2, 3]]


class Counting:
    mask_id = MASK

    def __init__(self, tokens: int) -> None:
        self.tokens, self.calls = tokens, 0

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert ids.shape == (2, self.tokens)
        found: torch.Tensor = MODEL(ids)
        return found


@pytest.mark.parametrize("name", LOOPS)
def test_loops_call_the_model_as_often_as_they_say(name: str) -> None:
    loop = short(name)
    model = Counting(loop.tokens)
    prompt = torch.arange(64).view(2, 32) + 1
    answers = loop.decode(model, prompt, seed=1)
    assert answers.shape == (2, loop.answer)
    assert (answers != MASK).all()
    assert model.calls == loop.calls
    loop.decode(model, prompt, seed=1, fewer=2)
    assert model.calls == loop.calls * 1.5
