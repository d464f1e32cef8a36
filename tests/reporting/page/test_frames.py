"""What the figure of the page is drawn of, against a slow telling of the same."""

from __future__ import annotations

import json
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marche_fx.reporting.page.frames import frame, panels_of
from marche_fx.reporting.step_choices import StepChoices
from tests.reporting.page.reports import STEPS, bounded


def choices_with(draw: st.DrawFn, samples: int, tokens: int, step: int) -> StepChoices:
    shape = st.lists(st.integers(0, 3), min_size=samples * tokens, max_size=samples * tokens)
    flags = st.lists(st.booleans(), min_size=samples * tokens, max_size=samples * tokens)
    numbers = st.lists(st.sampled_from([0.5, 1.0, 2.0, math.inf]), min_size=samples * tokens, max_size=samples * tokens)
    return StepChoices(
        step,
        "forward",
        tokens,
        tokens,
        tokens,
        torch.tensor(draw(shape), dtype=torch.uint8).view(samples, tokens),
        0.5,
        decoding_step=step,
        moved={"x": torch.tensor(draw(flags)).view(samples, tokens)},
        score=torch.tensor(draw(numbers)).view(samples, tokens) if draw(st.booleans()) else None,
        spared=torch.tensor(draw(flags)).view(samples, tokens) if draw(st.booleans()) else None,
    )


@st.composite
def calls(draw: st.DrawFn) -> list[StepChoices]:
    samples, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return [choices_with(draw, samples, tokens, 0) for _ in range(draw(st.integers(1, 3)))]


@given(calls())
@settings(max_examples=60, deadline=None)
def test_a_letter_tells_why_a_token_was_computed_first_or_that_it_was_left(choices: list[StepChoices]) -> None:
    found = frame(0, choices)
    samples, tokens = choices[0].reasons.shape
    for sample in range(samples):
        for token in range(tokens):
            own = [int(each.reasons[sample, token]) for each in choices]
            computed = [reason for reason in own if reason]
            spared = any(each.spared is not None and bool(each.spared[sample, token]) for each in choices)
            expected = ".cqr"[computed[0]] if computed else "s" if spared else "."
            assert found["letters"][sample][token] == expected
        moved = [token for token in range(tokens) if choices[-1].moved["x"][sample, token]]
        told = dict(found["moved"]).get("x", [[]] * samples)[sample]
        assert told == (True if len(moved) == tokens else moved)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(calls())
@settings(max_examples=60, deadline=None)
def test_refreshed_tokens_are_ranked_by_their_score(choices: list[StepChoices]) -> None:
    found = frame(0, choices)["scores"]
    scored = [own for own in choices if own.score is not None]
    assert (found is None) == (not scored)
    for sample, ranked in enumerate(found or []):
        own = scored[0]
        assert own.score is not None
        values = own.score[sample].tolist()
        refreshed = {at for at, reason in enumerate(own.reasons[sample].tolist()) if reason == 3}
        assert {place for place, _ in ranked} == {place for place in refreshed if math.isfinite(values[place])}
        assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
        assert all(score == values[place] for place, score in ranked)


def test_streams_of_calls_are_panels_side_by_side() -> None:
    session = bounded().session
    assert session is not None
    panels = panels_of(session.choices)
    assert [(own["stream"], own["method"], own["tokens"], own["samples"]) for own in panels] == [
        (0, "forward", 30, 2),
        (1, "forward", 30, 2),
    ]
    for panel in panels:
        assert [own["step"] for own in panel["frames"]] == list(range(STEPS))
        for step, own in enumerate(panel["frames"][1:], 1):
            first, second = own["letters"]
            assert first[step] == "c"
            assert "c" not in second
            assert own["moved"][0][1] == [[step], []]
            # 18 rows are read, and there is room for 6; the others may be among the refreshed.
            assert first.count("q") + second.count("q") > 0
            assert "s" in second
            assert set(second[10:28]) <= set("qrs")
            ((_, best), *_), _ = own["scores"]
            assert best > 0
