import json
from dataclasses import asdict, replace

import pytest
import torch

from marche_fx.evaluate.tokens import TokenRow
from marche_fx.evaluate.tokens.figures import token_rows
from marche_fx.models import load_judge
from marche_fx.models.tokens import ImageTokenizer
from tests.evaluate.study.test_lines import LINE

from .short import GARMENTS

TOKENIZER, JUDGE = GARMENTS.tokenizer, load_judge()
LABELS = torch.arange(6)


def codes(seed: int, tokenizer: ImageTokenizer = TOKENIZER) -> torch.Tensor:
    return torch.randint(tokenizer.codes, (6, 196), generator=torch.Generator().manual_seed(seed))


ORIGINAL = [replace(LINE, variant="original", policy="None", answers=codes(0).tolist(), nats=[])]
OWN = [
    replace(LINE, answers=codes(1)[:4].tolist(), nats=[]),
    replace(LINE, batch=1, answers=codes(1)[4:].tolist(), nats=[]),
]
HALVES = [replace(ORIGINAL[0], answers=codes(0)[part].tolist()) for part in (slice(4), slice(4, 6))]


@pytest.fixture(scope="module")
def rows() -> list[TokenRow]:
    return token_rows({"original": HALVES, "own": OWN}, LABELS, TOKENIZER, JUDGE)


def test_images_are_judged_as_the_judge_says(rows: list[TokenRow]) -> None:
    for row, seed in zip(rows, (0, 1)):
        images = TOKENIZER.decode(codes(seed))
        assert row.images == 6
        assert row.labels.estimate == pytest.approx(JUDGE.accuracy(images, LABELS))
        assert row.frechet.estimate == pytest.approx(JUDGE.frechet_distance(images), rel=1e-6)


def test_a_distance_is_compared_image_by_image(rows: list[TokenRow]) -> None:
    original, own = rows
    same = original.frechet_over_original
    assert same.estimate == same.low == same.high == 0
    over = own.frechet_over_original
    assert over.estimate == pytest.approx(own.frechet.estimate - original.frechet.estimate)
    assert over.low < over.estimate < over.high


def test_right_labels_are_counted_in_the_order_of_the_batches() -> None:
    images = TOKENIZER.decode(codes(1))
    with torch.no_grad():
        seen = JUDGE(images).argmax(-1)
    (_, row) = token_rows({"original": HALVES, "own": OWN}, seen, TOKENIZER, JUDGE)
    assert row.labels.estimate == 1


def test_a_row_is_plain_values_and_comes_back(rows: list[TokenRow]) -> None:
    assert [TokenRow.from_dict(json.loads(json.dumps(asdict(row)))) for row in rows] == rows
