import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from marche_fx.evaluate.study.figures import StudyRow, interval_of, seconds_ratio, shared_figures

from .test_lines import LINE

ORIGINAL = replace(
    LINE,
    variant="original",
    policy="None",
    answers=[[1, 2, 3, 4], [5, 5, 5, 5]],
    nats=[0.1, 0.3],
    rows=1.0,
    results=1.0,
    flops=1.0,
    seconds=3.0,
)
OWN = replace(LINE, answers=[[1, 2, 3, 4], [5, 5, 6, 7]], nats=[0.1, 0.5])


def test_a_row_compares_with_the_original_answer_by_answer() -> None:
    row = StudyRow(**shared_figures([OWN], [ORIGINAL]))
    assert (row.loop, row.variant, row.policy) == (OWN.loop, OWN.variant, OWN.policy)
    assert (row.same.estimate, row.same.low, row.same.high, row.identical) == (0.75, 0.5, 1.0, 0.5)
    assert (row.rows, row.results, row.flops, row.seconds_ratio) == (0.2, 0.1, 0.3, 0.5)


def test_the_original_is_the_same_as_itself() -> None:
    row = StudyRow(**shared_figures([ORIGINAL], [ORIGINAL]))
    assert row.same.estimate == row.same.low == row.same.high == row.identical == row.seconds_ratio == 1


def test_a_row_is_plain_values_and_comes_back() -> None:
    row = StudyRow(**shared_figures([OWN], [ORIGINAL]))
    assert StudyRow.from_dict(json.loads(json.dumps(asdict(row)))) == row


def test_intervals_are_of_answers_drawn_again() -> None:
    values = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = interval_of(values)
    error = 1.96 * values.std().item() / math.sqrt(40)
    assert found.estimate == pytest.approx(values.mean().item())
    assert found.high - found.estimate == pytest.approx(error, rel=0.2)
    assert found.estimate - found.low == pytest.approx(error, rel=0.2)


def test_only_times_of_one_process_are_compared() -> None:
    assert seconds_ratio([OWN, replace(OWN, run="b")], [ORIGINAL, replace(ORIGINAL, seconds=0.1)]) == 0.5
    assert seconds_ratio([OWN], [replace(ORIGINAL, run="b")]) is None
