"""Images as files, and back."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from marche_fx import ArgumentError
from marche_fx.sampling.formats import FORMATS, IMAGES, NUMBERS, format_of


@given(
    st.sampled_from(sorted(FORMATS)),
    st.integers(1, 4),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([1, 3, 4]),
    st.integers(0, 99),
)
def test_what_is_read_is_what_was_written(
    name: str, count: int, size: tuple[int, int], channels: int, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, *size, channels), dtype=np.uint8)
    arrays: dict[str, np.ndarray] = {IMAGES: images, NUMBERS: np.arange(count)}
    contents = FORMATS[name].encode(arrays)
    np.testing.assert_array_equal(FORMATS[name].decode(contents), images)
    assert FORMATS[name].encode(arrays) == contents, "equal arrays are equal bytes"
    assert len(FORMATS[name].names(3, range(7, 7 + count))) == len(contents)


def test_a_png_is_one_for_everybody() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    (content,) = FORMATS["png"].encode({IMAGES: images})
    found = Image.open(io.BytesIO(content))
    assert (found.format, found.mode, found.getpixel((1, 0))) == ("PNG", "RGB", (3, 4, 5))


@pytest.mark.parametrize(
    ("name", "raw", "told"), [("gif", False, "one of png"), (3, False, "got 3"), ("png", True, "raw")]
)
def test_what_cannot_be_written_is_refused(name: object, raw: bool, told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        format_of(name, raw=raw)


def test_without_pillow_there_are_the_other_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match="PNG needs pillow"):
        format_of("png", raw=False)
    assert format_of("npz", raw=True) is FORMATS["npz"]
