from __future__ import annotations

from typing import Any

import pytest

from marche_fx.bench import Settings
from marche_fx.errors import ArgumentError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"every": 0}, "every must be at least 1"),
        ({"batch": (4, 0)}, "batch must name sizes of at least 1"),
        ({"batch": ()}, "batch must name sizes"),
        ({"cfg": (0.5,)}, "cfg must name guidance scales of at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Settings(**arguments)


def test_settings_are_plain_values() -> None:
    assert Settings(batch=(1, 8)).to_dict()["batch"] == [1, 8]
