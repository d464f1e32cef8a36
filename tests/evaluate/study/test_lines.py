from dataclasses import replace
from pathlib import Path

from marche_fx.evaluate.study.lines import Line, Lines

LINE = Line(
    "low-confidence", "default", 0, "SelectiveRefresh()", [[1, 2], [3, 4]], [0.1 + 0.2, 1 / 3], 0.2, 0.1, 0.3, 1.5, "a"
)


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    lines = Lines(path)
    assert not lines.known
    second = replace(LINE, batch=1)
    lines.add(LINE)
    lines.add(second)
    assert Lines(path).known == {LINE.key: LINE, second.key: second} == lines.known


def test_what_a_kill_left_of_a_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    Lines(path).add(LINE)
    text = path.read_text()
    for left in (text + text[:40], text[:40]):
        path.write_text(left)
        kept = Lines(path).known
        assert list(kept.values()) == ([LINE] if len(left) > len(text) else [])
        second = replace(LINE, variant="exact")
        Lines(path).add(second)
        assert second.key in Lines(path).known


def test_another_policy_of_the_same_name_has_other_lines() -> None:
    assert replace(LINE, policy="SelectiveRefresh(fraction=0.2)").key != LINE.key
