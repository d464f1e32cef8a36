import json
import math
from dataclasses import asdict

import pytest
import torch

from marche_fx.evaluate.text.figures import TextRow, text_row
from tests.evaluate.study.test_figures import ORIGINAL, OWN

PROMPTS = torch.zeros(2, 1, dtype=torch.long)


def test_a_row_compares_perplexities_prompt_by_prompt() -> None:
    row = text_row([OWN], [ORIGINAL], PROMPTS, None)
    assert (row.prompts, row.same.estimate, row.identical) == (2, 0.75, 0.5)
    assert row.perplexity == pytest.approx(math.exp(0.3))
    assert row.perplexity_over_original.estimate == pytest.approx(math.exp(0.1))
    assert row.perplexity_over_original.low == pytest.approx(1)
    assert row.bits_per_byte is None


def test_the_original_is_as_good_as_itself() -> None:
    over = text_row([ORIGINAL], [ORIGINAL], PROMPTS, None).perplexity_over_original
    assert over.estimate == over.low == over.high == 1


def test_a_row_is_plain_values_and_comes_back() -> None:
    row = text_row([OWN], [ORIGINAL], PROMPTS, None)
    assert TextRow.from_dict(json.loads(json.dumps(asdict(row)))) == row
