import torch

from marche_fx.models.parallel_decoding import add_gumbel_noise, generate_in_parallel

from .decoders import PROMPT, Oracle


def test_noise_draws_pieces_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    drawn = add_gumbel_noise(logits, 1.0, torch.Generator().manual_seed(0)).argmax(-1)
    shares = drawn.bincount(minlength=3) / len(drawn)
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.015)
    colder = add_gumbel_noise(logits, 0.5, torch.Generator().manual_seed(0)).argmax(-1).bincount() / len(drawn)
    assert torch.allclose(colder, torch.tensor([25, 9, 4]) / 38, atol=0.015)


def test_masks_become_fewer_along_a_cosine() -> None:
    oracle = Oracle()
    ids = generate_in_parallel(oracle, PROMPT, 20, mask_id=0, steps=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ids[:, :3], PROMPT)
    assert (ids != 0).all()
    assert [int((asked[0] == 0).sum()) for asked in oracle.asked] == [20, 18, 14, 7]


def test_more_steps_than_pieces_fill_one_in_each() -> None:
    oracle = Oracle()
    ids = generate_in_parallel(oracle, PROMPT, 3, mask_id=0, steps=10, generator=torch.Generator().manual_seed(0))
    assert (ids != 0).all()
    assert len(oracle.asked) == 3
