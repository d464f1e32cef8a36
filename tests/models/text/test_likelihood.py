import math

import torch
from torch import Tensor

from marche_fx.models.text import bits_per_byte, likelihood_bound, pseudo_likelihood

from .tiny import tiny_corpus, tiny_model


def even(ids: Tensor) -> Tensor:
    """A model of 512 pieces that knows nothing."""
    return torch.zeros(*ids.shape, 512)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_the_vocabulary() -> None:
    ids = torch.arange(40).view(2, 20)
    nothing = torch.full((2,), math.log(512), dtype=torch.float64)
    assert torch.allclose(likelihood_bound(even, ids, mask_id=0), nothing)
    assert torch.allclose(pseudo_likelihood(even, ids, mask_id=0), nothing[:, None].expand(2, 20))
    corpus = tiny_corpus()
    expected = 9 * len(corpus.pieces) / corpus.size
    assert math.isclose(bits_per_byte(even, corpus, mask_id=0, length=16), expected, rel_tol=1e-5)


def test_each_piece_is_judged_by_all_others_but_not_itself() -> None:
    model = tiny_model().double().eval()
    ids = torch.arange(1, 13).view(2, 6)
    found = pseudo_likelihood(model, ids, mask_id=0, batch=4)
    hidden = ids.clone()
    hidden[1, 4] = 0
    with torch.no_grad():
        expected = -model(hidden)[1, 4].log_softmax(-1)[ids[1, 4]]
    assert torch.isclose(found[1, 4], expected)


def test_the_bound_is_the_mean_over_all_numbers_of_masks() -> None:
    model = tiny_model().double().eval()
    ids = torch.arange(1, 3)[None]
    one, other, both = ids.clone(), ids.clone(), torch.zeros_like(ids)
    one[0, 0] = other[0, 1] = 0

    def nats(given: Tensor, place: int) -> Tensor:
        with torch.no_grad():
            return -model(given)[0, place].log_softmax(-1)[ids[0, place]]

    with_one = (nats(one, 0) + nats(other, 1)) / 2
    with_two = (nats(both, 0) + nats(both, 1)) / 2
    found = likelihood_bound(model, ids, mask_id=0, draws=400)
    assert torch.isclose(found[0], (with_one + with_two) / 2, atol=0.02)
