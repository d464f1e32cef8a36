"""Every text that an error or a warning of the package may have, read off its source.

What varies is written ``…``: ``raise ArgumentError(f"steps must be at least 1, got {steps}")`` is the message
``steps must be at least 1, got …``. Where a text is put together elsewhere it is followed: into functions that return
it, names that it is assigned to, and, where next to nothing is left of it, to the callers that pass it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]

VARIES = "…"

WARNERS = ("warn", "warn_once")

REASONS = ("LengthError", "RecordingError", "UnusableError")
"""Errors that no user sees, whose texts end a warning."""

FEWEST_LETTERS = 12
"""A text with fewer says too little by itself, so it is followed to those that pass the rest."""

DEEPEST = 3
"""So many functions a text is followed through."""


@dataclass(frozen=True)
class Message:
    """One text. ``where``: file and line that raise it or warn of it."""

    text: str
    where: str


@dataclass
class Source:
    """A file: its functions by name, and in which function each node is."""

    path: Path
    tree: ast.Module
    functions: dict[str, list[ast.FunctionDef]] = field(default_factory=dict)
    inside: dict[ast.AST, ast.FunctionDef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                self.functions.setdefault(node.name, []).append(node)
                # The innermost function is visited last.
                self.inside |= dict.fromkeys(ast.walk(node), node)


def letters(text: str) -> int:
    return sum(own.isalpha() for own in text)


@functools.cache
def sources() -> tuple[Source, ...]:
    files = [*sorted((ROOT / "marche_fx").rglob("*.py")), *sorted((ROOT / "passes").rglob("*.py"))]
    own = [path for path in files if path.relative_to(ROOT).parts[:2] != ("marche_fx", "passes")]
    return tuple(Source(path, ast.parse(path.read_text(encoding="utf-8"))) for path in own)


@functools.cache
def error_names() -> frozenset[str]:
    """`MarcheError` and all classes that derive from it."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"MarcheError"}
    while True:
        more = {name for name, own in bases.items() if own & found} - found
        if not more:
            return frozenset(found)
        found |= more


def called_name(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def messages() -> list[Message]:
    """All texts, in the order of the files."""
    found: dict[str, Message] = {}
    for source in sources():
        for node in ast.walk(source.tree):
            text = text_of(node) if isinstance(node, ast.Call) else None
            if text is None:
                continue
            where = f"{source.path.relative_to(ROOT)}:{text.lineno}"
            inside = source.inside.get(node)
            if inside is not None and inside.name in WARNERS:
                continue  # it passes on what it is given
            for own in map(squeezed, told(source, text, inside, DEEPEST)):
                found.setdefault(own, Message(own, where))
    return list(found.values())


def text_of(node: ast.Call) -> ast.expr | None:
    """The argument of a call that is the text of an error or a warning; None where it is no such call."""
    name = called_name(node)
    if name not in error_names() and name not in (*WARNERS, *REASONS):
        return None
    # What was told before, where it is given, stands first.
    return next((own for own in node.args if not ast.unparse(own).endswith("warned")), None)


def squeezed(text: str) -> str:
    """On one line, and with one ``…`` in place of several in a row."""
    text = " ".join(text.split())
    while f"{VARIES}{VARIES}" in text:
        text = text.replace(f"{VARIES}{VARIES}", VARIES)
    return text


def told(source: Source, node: ast.expr, inside: ast.FunctionDef | None, depth: int) -> list[str]:
    """What an expression may say; followed to callers where it says next to nothing."""
    texts = list(spoken(source, node, inside, {}, depth))
    if inside is None or all(letters(text) >= FEWEST_LETTERS for text in texts):
        return texts
    passed = [
        text
        for caller, call in calls_of(source, inside)
        for text in spoken(source, node, inside, bound(caller, call, inside, depth), depth)
    ]
    return passed or texts


def calls_of(source: Source, function: ast.FunctionDef) -> Iterator[tuple[Source, ast.Call]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and called_name(node) == function.name and node is not function:
            yield source, node


def bound(source: Source, call: ast.Call, function: ast.FunctionDef, depth: int) -> dict[str, list[str]]:
    """What each parameter of a function says in a call of it."""
    names = [own.arg for own in (*function.args.posonlyargs, *function.args.args) if own.arg != "self"]
    given = dict(zip(names, call.args)) | {own.arg: own.value for own in call.keywords if own.arg is not None}
    inside = source.inside.get(call)
    return {name: list(spoken(source, value, inside, {}, depth - 1)) for name, value in given.items()}


def spoken(
    source: Source, node: ast.expr, inside: ast.FunctionDef | None, given: dict[str, list[str]], depth: int
) -> Iterator[str]:
    """Every text that an expression may be; `VARIES` for what the source does not say."""

    def again(own: ast.expr) -> Iterator[str]:
        return spoken(source, own, inside, given, depth)

    if isinstance(node, ast.Constant):
        yield str(node.value) if isinstance(node.value, str) else VARIES
    elif isinstance(node, ast.JoinedStr):
        yield from joined([list(again(part)) for part in node.values])
    elif isinstance(node, ast.FormattedValue):
        # Values are quoted as they vary; texts that the caller chose are followed.
        yield from again(node.value) if isinstance(node.value, (ast.Name, ast.IfExp, ast.Constant)) else [VARIES]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from joined([list(again(node.left)), list(again(node.right))])
    elif isinstance(node, ast.IfExp):
        yield from again(node.body)
        yield from again(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from again(value)
    elif isinstance(node, ast.Name) and node.id in given:
        yield from given[node.id]
    elif isinstance(node, ast.Name):
        yield from assigned(source, node.id, inside, given, depth)
    elif isinstance(node, ast.Call) and depth:
        yield from returned(source, node, depth)
    else:
        yield VARIES


def joined(parts: list[list[str]]) -> list[str]:
    texts = [""]
    for part in parts:
        texts = [text + own for text in texts for own in (part or [VARIES])]
    return texts


def assigned(
    source: Source, name: str, inside: ast.FunctionDef | None, given: dict[str, list[str]], depth: int
) -> Iterator[str]:
    """What a name of a function, or of its file, was set to, where that is a text."""
    for scope in (inside, source.tree):
        if scope is None:
            continue
        body = ast.walk(scope) if isinstance(scope, ast.FunctionDef) else iter(scope.body)
        values = [
            own.value
            for own in body
            if isinstance(own, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in own.targets)
        ]
        if values and depth:
            for value in values:
                yield from spoken(source, value, inside, given, depth - 1)
            return
    yield VARIES


def returned(source: Source, call: ast.Call, depth: int) -> Iterator[str]:
    """What a function returns that is defined once: here, or if not here elsewhere in the package."""
    name = called_name(call)
    home = imported_from(source, name)
    among = [source] if name in source.functions else [own for own in sources() if home in ("", own.path.stem)]
    places = [(own, each) for own in among for each in own.functions.get(name, [])]
    if len(places) != 1 or not says_text(places[0][1]):
        yield VARIES
        return
    where, function = places[0]
    given = bound(source, call, function, depth)
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None and not is_none(node.value):
            yield from spoken(where, node.value, function, given, depth - 1)


def imported_from(source: Source, name: str) -> str:
    """The last part of the module that a file imports a name from; empty where it does not."""
    nodes = [own for own in ast.walk(source.tree) if isinstance(own, ast.ImportFrom) and own.module]
    homes = (own.module for own in nodes if any(name == alias.name for alias in own.names))
    return next((own for own in homes if own), "").rpartition(".")[2]


def says_text(function: ast.FunctionDef) -> bool:
    """Whether it is said to return a text."""
    return function.returns is not None and "str" in ast.unparse(function.returns).split(" | ")


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
