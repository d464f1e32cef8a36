import pytest
import torch
from torch import Tensor

from marche_fx.errors import ArgumentError
from marche_fx.models.parallel_decoding import generate_in_parallel
from marche_fx.models.text import generate
from marche_fx.models.text.decoding import even_shares
from tests.models.decoders import ANSWER, PROMPT, Oracle

from .tiny import tiny_model


@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
def test_blocks_are_filled_one_after_another_with_even_shares(remasking: str) -> None:
    oracle = Oracle()
    generator = torch.Generator().manual_seed(0)
    ids = generate(
        oracle,
        PROMPT,
        16,
        mask_id=0,
        block_length=8,
        steps_per_block=3,
        remasking=remasking,
        generator=generator,
    )
    assert torch.equal(ids[:, :3], PROMPT)
    assert torch.equal(ids[0, 3:], ANSWER[3:19])
    masks = torch.stack([(asked == 0).sum(-1) for asked in oracle.asked])
    assert masks[:, 0].tolist() == [16, 13, 10, 8, 5, 2]
    assert (oracle.asked[3][:, 3:11] != 0).all()


def test_the_surest_pieces_are_kept_first() -> None:
    oracle = Oracle()
    generate(oracle, PROMPT, 4, mask_id=0, block_length=4, steps_per_block=4)
    assert [(asked[0, 3:] != 0).tolist() for asked in oracle.asked[1:]] == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
    ]


def test_shares_are_even() -> None:
    assert even_shares(8, 3) == [3, 3, 2]
    with pytest.raises(ArgumentError, match="8 pieces cannot be filled in 9 steps"):
        even_shares(8, 9)


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(ArgumentError, match="remasking must be one of low_confidence, random, got 'high'"):
        generate(Oracle(), PROMPT, 8, mask_id=0, block_length=8, remasking="high")
    with pytest.raises(ArgumentError, match="length 9 is no multiple of block_length 8"):
        generate(Oracle(), PROMPT, 9, mask_id=0, block_length=8)


def test_decoding_is_the_same_again_with_the_same_seed() -> None:
    model = tiny_model().eval()

    def both(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        block = generate(
            model, PROMPT, 16, mask_id=0, block_length=8, steps_per_block=4, temperature=1.0, generator=generator
        )
        return torch.cat([block, generate_in_parallel(model, PROMPT, 16, mask_id=0, steps=4, generator=generator)])

    assert torch.equal(both(1), both(1))
    assert not torch.equal(both(1), both(2))
