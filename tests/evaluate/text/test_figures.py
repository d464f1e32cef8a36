import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from marche_fx.evaluate.text.figures import TextRow, interval_of, seconds_ratio, text_row

from .test_lines import LINE

PROMPTS = torch.zeros(2, 1, dtype=torch.long)
ANSWERS = [[1, 2, 3, 4], [5, 5, 5, 5]]
ORIGINAL = replace(
    LINE,
    variant="original",
    policy="None",
    answers=ANSWERS,
    nats=[0.1, 0.3],
    rows=1.0,
    results=1.0,
    flops=1.0,
    seconds=3.0,
)
OWN = replace(LINE, answers=[[1, 2, 3, 4], [5, 5, 6, 7]], nats=[0.1, 0.5])


def test_a_row_compares_with_the_original_prompt_by_prompt() -> None:
    row = text_row([OWN], [ORIGINAL], PROMPTS, None)
    assert (row.prompts, row.same.estimate, row.identical) == (2, 0.75, 0.5)
    assert (row.same.low, row.same.high) == (0.5, 1.0)
    assert (row.rows, row.results, row.flops, row.seconds_ratio) == (0.2, 0.1, 0.3, 0.5)
    assert row.perplexity == pytest.approx(math.exp(0.3))
    assert row.perplexity_over_original.estimate == pytest.approx(math.exp(0.1))
    assert row.perplexity_over_original.low == pytest.approx(1)
    assert row.bits_per_byte is None


def test_the_original_is_the_same_as_itself() -> None:
    row = text_row([ORIGINAL], [ORIGINAL], PROMPTS, None)
    assert row.same.estimate == row.same.low == row.same.high == row.identical == 1
    over = row.perplexity_over_original
    assert over.estimate == over.low == over.high == row.seconds_ratio == 1


def test_a_row_is_plain_values_and_comes_back() -> None:
    row = text_row([OWN], [ORIGINAL], PROMPTS, None)
    assert TextRow.from_dict(json.loads(json.dumps(asdict(row)))) == row


def test_intervals_are_of_prompts_drawn_again() -> None:
    values = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = interval_of(values)
    error = 1.96 * values.std().item() / math.sqrt(40)
    assert found.estimate == pytest.approx(values.mean().item())
    assert found.high - found.estimate == pytest.approx(error, rel=0.2)
    assert found.estimate - found.low == pytest.approx(error, rel=0.2)


def test_only_times_of_one_process_are_compared() -> None:
    assert seconds_ratio([OWN, replace(OWN, run="b")], [ORIGINAL, replace(ORIGINAL, seconds=0.1)]) == 0.5
    assert seconds_ratio([OWN], [replace(ORIGINAL, run="b")]) is None
