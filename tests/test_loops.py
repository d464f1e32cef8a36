"""Public loops with nothing passed: they gain and read fresh rows, or the user is told why not."""

from __future__ import annotations

import pytest

from tests.loops.loops import ENTRIES, Entry
from tests.loops.table import decode


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_a_loop_gains_and_reads_fresh_rows_or_the_user_is_told_why_not(entry: Entry) -> None:
    row = decode(entry)
    expected = [own for own in (entry.told, entry.also) if own]
    assert [told for told in row.told if not any(own in told for own in expected)] == []
    if entry.told:
        assert any(entry.told in told for told in row.told), row
    else:
        assert not row.is_useless
        assert not row.is_stale
    if row.is_useless or row.is_stale:
        assert row.told
