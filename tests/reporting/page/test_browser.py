"""The page in a real browser, without a network; skipped where there is no Chromium."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from marche_fx.reporting.page.frames import panels_of
from marche_fx.reporting.report import Report
from tests.browser import NAMES as BROWSERS
from tests.browser import Page, browser_path, opened_browser
from tests.reporting import hostile
from tests.reporting.page.reports import STEPS, bounded, hostile_report

pytestmark = pytest.mark.skipif(
    browser_path() is None,
    reason=f"needs a browser on the path, one of {', '.join(BROWSERS)}: apt-get install chromium",
)

REASONS = {".": "cached", "c": "changed", "q": "queried", "r": "refreshed", "s": "stale"}

CONTRASTS = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (own) => (own / 255 <= 0.04045 ? own / 255 / 12.92 : ((own / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let own = element; own; own = own.parentElement) {
      const colour = channels(getComputedStyle(own).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length || element.closest("script, svg")) continue;
    const style = getComputedStyle(element);
    const pair = [luminance(channels(style.color)), luminance(behind(element))].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), parseFloat(style.fontSize), walker.currentNode.data.slice(0, 40)]);
  }
  return found;
})()
"""
"""Of every text that is shown its contrast with what is behind it, and its size in pixels."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with opened_browser() as page:
        yield page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


def saved(report: Report, path: Path) -> Path:
    if not path.exists():
        report.save(path)
    return path


@pytest.fixture
def session(browser: Page, folder: Path) -> Page:
    browser.open(saved(bounded(), folder / "session.html"))
    return browser


@pytest.mark.parametrize("name", ["session", "names"])
def test_a_page_opens_without_a_network_and_without_a_complaint(name: str, browser: Page, folder: Path) -> None:
    report = {"session": bounded, "names": hostile_report}[name]
    path = saved(report(), folder / f"{name}.html")
    browser.open(path)
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []
    assert browser.run("document.title") == f"{report().model}: what marche_fx does with it"


def test_names_that_are_markup_are_shown_and_do_nothing(browser: Page, folder: Path) -> None:
    browser.open(saved(hostile_report(), folder / "names.html"))
    shown = browser.run("[...document.querySelectorAll('summary .name')].map((own) => own.textContent)")
    assert set(hostile.NAMES) <= set(shown)
    assert "broken" not in browser.run("document.title")
    assert browser.run("document.querySelectorAll('a, img, body script:not([type])').length") == 1, "the page's script"


def test_nothing_but_the_page_s_script_runs(session: Page) -> None:
    refused = session.run(
        "new Promise((done) => {"
        "  const refused = [];"
        "  addEventListener('securitypolicyviolation', (event) => {"
        "    refused.push(event.effectiveDirective);"
        "    if (['script-src-attr', 'script-src-elem'].every((own) => refused.includes(own))) done(refused);"
        "  });"
        "  document.body.insertAdjacentHTML('beforeend', '<button onclick=\"document.title=1\">x</button>');"
        "  document.body.lastElementChild.click();"
        "  const own = document.createElement('script');"
        "  own.textContent = 'document.title = 2';"
        "  document.body.append(own);"
        "})"
    )
    assert {"script-src-attr", "script-src-elem"} <= set(refused)
    assert session.run("document.title").startswith("Conditioned")


def visible_rows(page: Page) -> int:
    rows = "[...document.querySelectorAll('.tree tbody tr')].filter((own) => own.checkVisibility()).length"
    return int(page.run(rows))


def search(page: Page, text: str) -> None:
    page.run("document.getElementById('search').focus(); document.getElementById('search').select()")
    page.press("Backspace", 8)
    page.type(text)


def test_a_search_opens_the_modules_of_what_it_finds(session: Page) -> None:
    operators = [own for graph in bounded().graphs for own in graph.operators()]
    own = sum(not operator.module for operator in operators)
    assert visible_rows(session) == own, "only the model itself is open"
    search(session, "LAYER_norm first")
    expected = [own for own in operators if "layer_norm" in own.operator and own.module.startswith("first")]
    assert visible_rows(session) == len(expected) == 2
    assert session.run("document.getElementById('found').textContent") == f"2 of {len(operators)} operators"
    search(session, "nothing is called so")
    assert visible_rows(session) == 0
    search(session, "")
    assert visible_rows(session) == own
    assert session.run("document.getElementById('found').textContent") == f"{len(operators)} operators"


def test_filters_leave_what_runs_in_a_way(session: Page) -> None:
    operators = [own for graph in bounded().graphs for own in graph.operators()]
    session.run("for (const own of document.querySelectorAll('.filter')) if (own.value !== 'full') own.click()")
    assert visible_rows(session) == sum(own.state == "full" for own in operators) == 1
    assert "mixes a window of 3 tokens" in session.run(
        "[...document.querySelectorAll('.tree tbody tr')].find((own) => own.checkVisibility()).textContent"
    )
    session.run("for (const own of document.querySelectorAll('.filter')) if (!own.checked) own.click()")
    session.run("document.getElementById('only-cached').click()")
    assert visible_rows(session) == sum(own.cache is not None for own in operators)


def test_a_module_opens_by_the_keyboard(session: Page) -> None:
    module = "document.querySelector('.tree > details > details')"
    assert session.run(f"{module}.open") is False
    session.run(f"{module}.querySelector('summary').focus()")
    session.press("Enter", 13, "\r")
    assert session.run(f"{module}.open") is True


def captions(page: Page) -> list[str]:
    found = page.run("[...document.querySelectorAll('figcaption')].map((own) => own.textContent)")
    return list(found)


def test_the_slider_shows_every_step_of_every_stream(session: Page) -> None:
    report = bounded()
    assert report.session is not None
    panels = panels_of(report.session.choices)
    session.run("document.getElementById('step').focus()")
    for step in range(STEPS):
        for panel, caption, cells in zip(
            panels,
            captions(session),
            session.run(
                "[...document.querySelectorAll('#panels svg')].map((own) => "
                "[...own.querySelectorAll('rect:not(.mark)')].map((cell) => cell.getAttribute('class')))"
            ),
            strict=True,
        ):
            letters = panel["frames"][step]["letters"][0]
            assert cells == [REASONS[own] for own in letters]
            counts = Counter(cells)
            told = ", ".join(f"{counts[name]} {name}" for name in REASONS.values() if counts[name])
            assert caption == f"forward, stream {panel['stream']}, step {step}: {told}"
        session.press("ArrowRight", 39)
    assert session.run("document.getElementById('step-shown').textContent") == str(STEPS - 1)


def test_a_token_says_why_it_was_computed_or_left(session: Page) -> None:
    report = bounded()
    assert report.session is not None
    frame = panels_of(report.session.choices)[0]["frames"][3]
    session.run("const own = document.getElementById('step'); own.value = 3; own.dispatchEvent(new Event('input'))")
    for letter, expected in {
        "c": "token 3 was changed: 'x', read by aten.add (reports.py:",
        "q": "was queried: the loop read its result at reports.py:",
        "r": "was refreshed: its score ",
        "s": "was read and left as it was on purpose: computed last in step ",
    }.items():
        token = frame["letters"][0].index(letter)
        session.run(
            f"document.querySelectorAll('#panels svg')[0].querySelectorAll('rect')[{token}]"
            ".dispatchEvent(new MouseEvent('click'))"
        )
        told = session.run("document.getElementById('why').firstChild.textContent")
        assert told.startswith("forward, stream 0: ")
        assert expected in told
    session.run("document.querySelector('#panels svg').focus()")
    session.press("ArrowLeft", 37)
    assert session.run("document.getElementById('token').value") == str(token - 1)


def test_tokens_are_drawn_in_as_many_columns_as_asked_for(session: Page) -> None:
    sizes = "document.querySelector('#panels svg').getAttribute('viewBox')"
    assert session.run(sizes) == "0 0 20 2", "30 tokens are no square"
    session.run("const own = document.getElementById('columns'); own.value = 6; own.dispatchEvent(new Event('input'))")
    assert session.run(sizes) == "0 0 6 5"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_text_has_contrast_and_fits_any_width(width: int, dark: bool, browser: Page, folder: Path) -> None:
    for report in (bounded(), hostile_report()):
        browser.open(saved(report, folder / f"{report.model}.html"), width=width, height=844, dark=dark)
        browser.run("for (const own of document.querySelectorAll('details')) own.open = true")
        assert browser.run("document.documentElement.scrollWidth") <= width
        found = browser.run(CONTRASTS)
        assert len(found) > 200
        assert not [own for own in found if own[0] < 4.5]
        assert not [own for own in found if own[1] < 12]


def test_what_is_used_has_a_name_and_a_role(session: Page) -> None:
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("slider", "combobox", "spinbutton", "searchbox", "checkbox", "image", "group", "table", "search"):
        assert role in roles, role
    for role in ("slider", "combobox", "spinbutton", "searchbox", "checkbox", "image", "columnheader"):
        assert all(roles[role]), role
    assert {"Conditioned", "Step: forward", "Every step"} <= set(roles["heading"])
    assert "DisclosureTriangle" in roles
