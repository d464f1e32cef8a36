"""The model of a captured step: its modules, nested as in the model, and in each the operators that it computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..operators import STATES, Operator, total_flops
from ..site_report import SiteReport
from ..tables import memory, short
from .html import Html, scrolling, tag

HEADINGS = ("operator", "module", "value", "before", "after", "runs on", "source", "FLOPs before", "after")
NUMBERS = (7, 8)

FEW = 3
"""Of so few operators a module without children is no box of its own: they stand among those of its parent."""


@dataclass
class Module:
    """A module of the model and what it computes, in the order in which it does.

    Attributes:
        name: within its parent. kind: its class.
    """

    name: str
    path: str
    kind: str = ""
    operators: list[Operator] = field(default_factory=list)
    children: dict[str, Module] = field(default_factory=dict)
    sites: list[SiteReport] = field(default_factory=list)

    def all_operators(self) -> Iterator[Operator]:
        yield from self.operators
        for child in self.children.values():
            yield from child.all_operators()


def module_tree(
    model: str, operators: Sequence[Operator], sites: Iterable[SiteReport], kinds: Mapping[str, str]
) -> Module:
    """The modules that compute ``operators``; the model itself is the root."""
    root = Module(model, "", model)
    for own in operators:
        module_at(root, own.module, kinds).operators.append(own)
    for site in sites:
        module_at(root, site.path, kinds).sites.append(site)
    order = {own.name: number for number, own in enumerate(operators)}
    join_small(root, order)
    return root


def join_small(module: Module, order: Mapping[str, int]) -> None:
    """Give a module the operators of its small children, among its own as they run."""
    for name, child in list(module.children.items()):
        if child.children or len(child.operators) > FEW:
            join_small(child, order)
            continue
        module.operators += child.operators
        module.sites += child.sites
        del module.children[name]
    module.operators.sort(key=lambda own: order[own.name])


def module_at(root: Module, path: str, kinds: Mapping[str, str]) -> Module:
    own = root
    names = path.split(".") if path else []
    for number, name in enumerate(names, 1):
        if name not in own.children:
            whole = ".".join(names[:number])
            own.children[name] = Module(name, whole, kinds.get(whole, ""))
        own = own.children[name]
    return own


def module_html(module: Module, *, is_open: bool = False) -> Html:
    """A module that opens and closes, with its operators and its children."""
    inside = [*module.all_operators()]
    path = module.path or module.name
    return tag(
        "details",
        tag(
            "summary",
            tag("span", module.name, class_="name", title=path),
            tag("span", module.kind, class_="kind") if module.kind not in ("", module.name) else "",
            [site_chip(site) for site in module.sites],
            counts(inside),
            tag("span", f"{short(total_flops(inside))}FLOPs", class_="cost"),
        ),
        operator_table(module) if module.operators else "",
        [module_html(child) for child in module.children.values()],
        class_="module",
        data_path=module.path,
        open=is_open,
    )


def site_chip(site: SiteReport) -> Html:
    told = f"{site.kind}: {site.status}"
    return tag("span", told, class_="chip active" if site.claimed else "chip full")


def counts(operators: Sequence[Operator]) -> list[Html]:
    """How many operators run on what, and how many write a cache."""
    found = []
    for state in STATES:
        number = sum(own.state == state for own in operators)
        if number:
            found.append(tag("span", f"{number} {LABELS[state]}", class_=f"chip {state}"))
    cached = sum(own.cache is not None for own in operators)
    return [*found, tag("span", f"{cached} cached", class_="chip cached")] if cached else found


LABELS = {"active": "active", "read": "read", "full": "in full", "before": "before", "after": "after"}
"""Of `STATES`, short."""


def operator_table(module: Module) -> Html:
    head = [tag("th", own, scope="col", class_="number" if at in NUMBERS else None) for at, own in enumerate(HEADINGS)]
    rows = [operator_row(own, module.path) for own in module.operators]
    caption = f"operators of {module.path or module.name}"
    whole = tag("table", tag("caption", caption, class_="unseen"), tag("thead", tag("tr", head)), tag("tbody", rows))
    return scrolling(whole, caption)


def operator_row(own: Operator, within: str) -> Html:
    """The row of an operator of a module or of a small child."""
    runs: list[Html | str] = [tag("span", LABELS[own.state], class_=f"chip {own.state}", title=STATES[own.state])]
    if own.cache is not None:
        size = f"{own.cache.role} cache {shape_text(own.cache.shape)}, {memory(own.cache.bytes)}"
        runs.append(tag("span", "cached", class_="chip cached", title=size))
    if own.gathered:
        runs.append(tag("span", "active rows taken", class_="chip gathered"))
    if own.reason:
        runs.append(tag("span", own.reason, class_="why"))
    cells = [
        tag("th", own.operator, scope="row"),
        tag("td", own.module.removeprefix(within).removeprefix(".")),
        tag("td", own.name),
        tag("td", f"{own.dtype} {shape_text(own.shape)}" if own.dtype else ""),
        tag("td", shape_text(own.active_shape) if own.dtype else ""),
        tag("td", runs),
        tag("td", own.line),
        tag("td", short(own.flops) if own.flops else "", class_="number"),
        tag("td", short(own.active_flops) if own.flops else "", class_="number"),
    ]
    states = [own.state, *(["cached"] if own.cache is not None else [])]
    return tag("tr", cells, data_state=" ".join(states))


def shape_text(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
