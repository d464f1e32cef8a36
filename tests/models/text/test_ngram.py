import pytest
import torch

from marche_fx.errors import ArgumentError
from marche_fx.models.text import Ngrams, distinct

from .tiny import VOCABULARY, tiny_corpus

CORPUS = tiny_corpus()


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_chances_of_what_may_come_next_sum_to_one(order: int) -> None:
    ngrams = Ngrams(CORPUS.pieces, VOCABULARY, order)
    for context in (CORPUS.pieces[:4], torch.tensor([299, 298, 297, 296])):
        ids = torch.cat([context.expand(VOCABULARY, 4), torch.arange(VOCABULARY)[:, None]], 1)
        assert torch.isclose((-ngrams.nats(ids)[:, -1]).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_chances_are_those_of_kneser_and_ney() -> None:
    """Worked out by hand for ``a b a b a c``: bigrams ab 2, ba 2, ac 1."""
    a, b, c = 0, 1, 2
    ngrams = Ngrams(torch.tensor([a, b, a, b, a, c]), 4, order=2)
    discount = 1 / (1 + 2 * 2)
    # Before each of a, b and c stands one kind of piece; no count is 2, so the unigrams' discount is a half.
    unigram = 0.5 / 3 + 0.5 * 3 / 3 / 4
    chance = (2 - discount) / 3 + discount * 2 / 3 * unigram
    assert torch.isclose((-ngrams.nats(torch.tensor([[a, b]]))[0, 1]).exp(), torch.tensor(chance).double())


def test_text_of_the_kind_is_likelier_than_shuffled_text() -> None:
    length = len(CORPUS.pieces) * 3 // 4
    ngrams = Ngrams(CORPUS.pieces[:length], VOCABULARY)
    rest = CORPUS.pieces[length:][None]
    shuffled = rest[:, torch.randperm(rest.shape[1], generator=torch.Generator().manual_seed(0))]
    assert ngrams.nats(rest).mean() < 0.5 * ngrams.nats(shuffled).mean()


def test_repetition_is_told() -> None:
    assert distinct(torch.arange(100).view(2, 50)) == 1
    assert distinct(torch.zeros(2, 50, dtype=torch.int64)) == 1 / 94


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ArgumentError, match="order 6 with 4096 pieces"):
        Ngrams(CORPUS.pieces, 4096, order=6)
    with pytest.raises(ArgumentError, match="a text of 3 pieces has no 5-grams"):
        Ngrams(CORPUS.pieces[:3], VOCABULARY)


def test_rows_shorter_than_the_order_are_judged_by_what_they_have() -> None:
    assert Ngrams(CORPUS.pieces, VOCABULARY).nats(CORPUS.pieces[None, :2]).shape == (1, 2)
