"""Successive halving, on candidates whose cost and loss are known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marche_fx.tuning.halving import Measured, best, front, halve

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def measured(pairs: list[tuple[int, int]]) -> list[Measured[int]]:
    return [Measured(place, cost, loss) for place, (cost, loss) in enumerate(pairs)]


@given(PAIRS)
def test_the_front_is_what_nothing_beats(pairs: list[tuple[int, int]]) -> None:
    found = front(measured(pairs))
    for own in measured(pairs):
        is_beaten = any(
            cost <= own.cost and loss <= own.loss and (cost, loss) != (own.cost, own.loss) for cost, loss in pairs
        )
        assert (own in found) != is_beaten
    assert [own.cost for own in found] == sorted(own.cost for own in found)


@given(PAIRS, st.integers(1, 6))
def test_the_best_are_of_the_front_as_far_as_it_goes(pairs: list[tuple[int, int]], count: int) -> None:
    found, own_front = best(measured(pairs), count), front(measured(pairs))
    assert len(found) == min(count, len(pairs))
    assert len({own.candidate for own in found}) == len(found), "each once"
    if len(own_front) <= count:
        assert {own.candidate for own in own_front} <= {own.candidate for own in found}
    else:
        assert all(own in own_front for own in found)
        assert found[0] == own_front[0], "the cheapest"
        assert count == 1 or found[-1] == own_front[-1], "the one that loses least"


def test_each_round_looks_at_half_of_those_before() -> None:
    seen: list[list[int]] = [[], [], []]

    def measure(candidate: int, number: int) -> Measured[int]:
        seen[number].append(candidate)
        # Dearer and worse the higher the number, but for every fifth, which is good for its cost.
        return Measured(candidate, candidate, 100 - candidate if candidate % 5 == 0 else 100 + candidate)

    found = halve(range(20), measure, 3, 3)
    assert [len(own) for own in seen] == [20, 10, 5]
    assert seen[0] == list(range(20))
    assert set(seen[2]) <= set(seen[1])
    assert [own.candidate for own in found] == [0, 10, 15] or {own.candidate for own in found} <= {0, 5, 10, 15}
    assert {0, 15} <= {own.candidate for own in found}, "both ends of what is good"


def test_few_candidates_stay_until_the_last_round() -> None:
    rounds: list[int] = []

    def measure(candidate: int, number: int) -> Measured[int]:
        rounds.append(number)
        return Measured(candidate, 1.0, float(candidate))

    assert [own.candidate for own in halve(range(3), measure, 2, 3)] == [0, 1, 2]
    assert rounds == [0, 0, 0, 1, 1, 1]
