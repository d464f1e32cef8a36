import pytest

from marche_fx import ArgumentError
from marche_fx.evaluate.study.names import named

KNOWN = {"slow": 1, "default": 2, "other": 3}


def test_names_keep_their_order_and_all_are_meant_without_any() -> None:
    assert list(named(KNOWN, ["other", "slow"])) == ["slow", "other"]
    assert named(KNOWN, []) == KNOWN
    with pytest.raises(ArgumentError, match="there is no 'fast'; there are slow, default, other"):
        named(KNOWN, ["fast"])
