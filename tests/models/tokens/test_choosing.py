import torch

from marche_fx.models import load_judge
from marche_fx.models.tokens import Decoding
from marche_fx.models.tokens.choosing import CANDIDATES, judge_decodings

from .tiny import tiny_garments


def test_each_decoding_is_judged_by_its_own_images_of_all_classes() -> None:
    garments, judge = tiny_garments(), load_judge()
    few, many = Decoding(steps=2), Decoding(steps=4, guidance=1.0)
    found = list(judge_decodings(garments, judge, 2, [few, many]))
    assert [own.decoding for own in found] == [few, many]
    labels = torch.arange(10).repeat(2)
    for own in found:
        images = garments.sample(labels, own.decoding, generator=torch.Generator().manual_seed(0))
        assert own.distance == judge.frechet_distance(images)
        assert own.accuracy == judge.accuracy(images, labels)


def test_no_decoding_is_judged_before_it_is_asked_for() -> None:
    asked: list[Decoding] = []

    def candidates() -> object:
        for own in (Decoding(steps=1), Decoding(steps=2)):
            asked.append(own)
            yield own

    next(judge_decodings(tiny_garments(), load_judge(), 1, candidates()))  # type: ignore[arg-type]
    assert len(asked) == 1


def test_the_default_is_among_the_candidates() -> None:
    assert Decoding() in CANDIDATES
    assert len(set(CANDIDATES)) == len(CANDIDATES)
