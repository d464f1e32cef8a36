"""HTML by calls: text is escaped unless it is HTML already, so that a name is shown as it is, whatever it holds."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from ..tables import visible


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


VOID = ("input", "meta", "br", "col")
"""Elements without an end."""


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """An element.

    Args:
        content: texts, HTML, or lists of them.
        attributes: ``class_`` stands for ``class`` and ``data_label`` for ``data-label``; True for one without a value,
            None and False for none.
    """
    given = "".join(attribute(own, value) for own, value in attributes.items() if value is not None)
    start = f"<{name}{given}>"
    return Html(start if name in VOID else f"{start}{joined(content)}</{name}>")


def attribute(name: str, value: Any) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return "" if value is False else f' {name}="{html.escape(str(value))}"'


def joined(content: Any) -> Html:
    """HTML one after another; text is escaped."""
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(visible(content)))
    return Html("".join(joined(own) for own in content))


def script_data(values: Any) -> Html:
    """Values for a script of the page, in which nothing ends the element that they stand in."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return Html(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def table(caption: str, headings: Iterable[str], rows: Iterable[Iterable[Any]], *, numbers: Iterable[int] = ()) -> Html:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        rows: cells; the first of a row is its heading.
        numbers: of columns that hold numbers.
    """
    right = {*numbers}
    head = [tag("th", own, scope="col", class_="number" if at in right else None) for at, own in enumerate(headings)]
    body = [tag("tr", *(cell(own, at, is_number=at in right) for at, own in enumerate(cells))) for cells in rows]
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body))
    return scrolling(whole, caption)


def cell(content: Any, at: int, *, is_number: bool) -> Html:
    kind = "number" if is_number else None
    return tag("th", content, scope="row", class_=kind) if at == 0 else tag("td", content, class_=kind)


def scrolling(content: Html, name: str) -> Html:
    """What may be wider than the page, in a box that the keyboard can scroll too."""
    return tag("div", content, class_="scroll", role="group", aria_label=name, tabindex=0)


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """A list of what is called how."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs])
