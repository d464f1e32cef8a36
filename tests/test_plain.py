"""Whatever stands in a file of a policy or a recipe, it is one of ours or a `CheckpointError`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import marche_fx
from marche_fx import CheckpointError
from marche_fx.denoising.saving import KNOWN as DENOISINGS
from marche_fx.denoising.saving import denoising_to_dict
from marche_fx.head.saving import KNOWN as HEADS
from marche_fx.head.saving import head_reuse_to_dict
from marche_fx.plain import LARGEST
from marche_fx.recipes import recipe_to_dict
from marche_fx.refresh import policy_to_dict
from marche_fx.refresh.saving import KNOWN as POLICIES

READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Any]]] = {
    "policy": (marche_fx.load_policy, policy_to_dict),
    "denoising": (marche_fx.load_denoising, denoising_to_dict),
    "head reuse": (marche_fx.load_head_reuse, head_reuse_to_dict),
    "recipe": (marche_fx.load_recipe, recipe_to_dict),
}

KINDS = [*POLICIES, *DENOISINGS, *HEADS, "Recipe", "Own", "__class__", "os.system"]

NAMES = [
    *(
        "kind",
        "format",
        "fraction",
        "warmup",
        "every",
        "tolerance",
        "queried",
        "sites",
        "age",
        "first",
        "second",
        "steps",
    ),
    *(
        "mean",
        "start",
        "end",
        "period",
        "grid",
        "radius",
        "seed",
        "slow",
        "branches",
        "whole",
        "order",
        "points",
        "anneal",
    ),
    *("refresh", "denoising", "reuse", "figures", "model", "cfg", "self", "__init__"),
]

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from([*KINDS, "linear", "cubic", "first", "last", "halton", "quadratic"])
)


def nested(parts: Any) -> Any:
    named = st.dictionaries(st.sampled_from(NAMES), parts, max_size=5)
    of_kind = st.builds(lambda kind, rest: rest | {"kind": kind}, st.sampled_from(KINDS) | parts, named)
    recipe = st.builds(lambda rest: rest | {"kind": "Recipe", "format": 1}, named)
    return st.lists(parts, max_size=3) | named | of_kind | recipe


VALUES = st.recursive(LEAVES, nested, max_leaves=12)


@pytest.mark.parametrize("what", READERS)
@settings(max_examples=150)
@given(value=VALUES)
def test_any_json_is_one_of_ours_or_refused(what: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    load, to_dict = READERS[what]
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    try:
        found = load(path)
    except CheckpointError:
        return
    # What was read is what is written of it, and is read again as the same.
    path.write_text(json.dumps(to_dict(found)))
    assert load(path) == found


HOSTILE = {
    "a kind that is a list": b'{"kind": []}',
    "a kind that is an object": b'{"kind": {}}',
    "no kind": b"{}",
    "a number": b"3",
    "nothing": b"",
    "deep lists": b"[" * 400 + b"]" * 400,
    "deeper lists": b"[" * 100_000 + b"]" * 100_000,
    "deep policies": b'{"kind":"Both","first":' * 300 + b"1" + b"}" * 300,
    "a name twice": b'{"kind": "FullRefresh", "kind": "FullRefresh"}',
    "no number": b'{"kind": "SelectiveRefresh", "fraction": NaN}',
    "a huge number": b'{"kind": "SelectiveRefresh", "fraction": 1' + b"0" * 4000 + b"}",
    "a longer number": b'{"kind": "SelectiveRefresh", "fraction": 1' + b"0" * 9000 + b"}",
    "an argument of another kind": b'{"kind": "SelectiveRefresh", "fraction": {"kind": "Hold", "every": 2}}',
    "an argument that there is not": b'{"kind": "FullRefresh", "__class__": 1}',
    "no Unicode": b'{"kind": "\xff"}',
    "too much": b" " * (LARGEST + 1),
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused(what: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "any.json").write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError) as error:
        READERS[what][0](tmp_path / "any.json")
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("what", READERS)
def test_what_is_no_file_is_refused_at_once(what: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "device.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "device.json", ".", "none.json"):
        with pytest.raises(CheckpointError, match="cannot read"):
            READERS[what][0](tmp_path / name)
