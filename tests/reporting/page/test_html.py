"""Elements by calls, and that text stays text."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from marche_fx.reporting.page.html import Html, joined, script_data, table, tag


def test_text_is_escaped_and_html_is_not() -> None:
    assert tag("p", "a < b", tag("b", "c & d"), class_="x", open=True, hidden=False, title=None) == (
        '<p class="x" open>a &lt; b<b>c &amp; d</b></p>'
    )
    assert tag("input", id="a", data_label="<") == '<input id="a" data-label="&lt;">'
    assert joined(["<", Html("<br>")]) == "&lt;<br>"


class Reader(HTMLParser):
    """Text and attributes as a browser has them."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.values, self.tags = "", [], []  # type: ignore[var-annotated]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        self.values += [value for _, value in attrs]


@given(st.text(st.characters(exclude_categories=["C"])))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    reader = Reader()
    reader.feed(tag("p", text, title=text))
    reader.close()
    # Any separator of words or lines that is not a plain space is written out.
    if text.isprintable():
        assert reader.text == text
    assert reader.values == [text]
    assert reader.tags == ["p"]


def test_what_nobody_sees_is_written_out() -> None:
    assert tag("p", "\x1b[31mred\u202e") == "<p>\\x1b[31mred\\u202e</p>"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["</script>", "<!--", "\u2028"]),
    lambda own: st.lists(own, max_size=3) | st.dictionaries(st.text(), own, max_size=3),
)


@given(values)
def test_nothing_ends_the_element_that_data_stand_in(data: object) -> None:
    text = script_data(data)
    assert json.loads(text) == data
    assert not {"<", "\u2028", "\u2029"} & set(text)


def test_a_table_has_a_caption_headings_and_a_box_that_scrolls() -> None:
    found = table("sizes", ("name", "size"), [["a", "1"]], numbers=(1,))
    assert found == (
        '<div class="scroll" role="group" aria-label="sizes" tabindex="0"><table><caption>sizes</caption>'
        '<thead><tr><th scope="col">name</th><th scope="col" class="number">size</th></tr></thead>'
        '<tbody><tr><th scope="row">a</th><td class="number">1</td></tr></tbody></table></div>'
    )
