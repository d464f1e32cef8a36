"""Of too many things those go that were not used for longest, and none that is in use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marche_fx.passes.recent import Recent

KEYS = st.integers(0, 6)
ACTIONS = st.lists(st.tuples(st.sampled_from(["put", "get", "hold", "let go"]), KEYS), max_size=40)


class Plain:
    """The same by a list of keys, in the order of their last use."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.keys: list[int] = []
        self.dropped = 0

    def get(self, key: int) -> int | None:
        if key not in self.keys:
            return None
        self.keys.remove(key)
        self.keys.append(key)
        return key

    def put(self, key: int, held: set[int]) -> None:
        self.keys = [own for own in self.keys if own != key]
        idle = [own for own in self.keys if own not in held]
        for own in idle[: max(len(self.keys) + 1 - self.most, 0)]:
            self.keys.remove(own)
            self.dropped += 1
        self.keys.append(key)


@given(st.integers(1, 4), ACTIONS)
def test_what_is_kept_is_what_a_list_in_the_order_of_use_keeps(most: int, actions: list[tuple[str, int]]) -> None:
    held: set[int] = set()
    recent: Recent[int, int] = Recent(most, held.__contains__)
    plain = Plain(most)
    for action, key in actions:
        if action == "put":
            recent.put(key, key)
            plain.put(key, held)
        elif action == "get":
            assert recent.get(key) == plain.get(key)
        elif action == "hold":
            held.add(key)
        else:
            held.discard(key)
        assert {own for own, _ in recent.items()} == {*plain.keys}
        assert len(recent) <= most + len(held)
        assert recent.dropped == plain.dropped


def test_to_look_through_all_is_no_use_of_them() -> None:
    recent: Recent[str, int] = Recent(2)
    for number, key in enumerate("ab"):
        recent.put(key, number)
    assert [*recent.items()] == [("a", 0), ("b", 1)]
    assert "a" in recent
    recent.put("c", 2)
    assert [*recent.items()] == [("b", 1), ("c", 2)]


def test_what_is_cleared_is_not_counted() -> None:
    recent: Recent[str, int] = Recent(1)
    recent.put("a", 0)
    recent.put("b", 1)
    recent.clear()
    assert (len(recent), recent.dropped, recent.get("b")) == (0, 1, None)
