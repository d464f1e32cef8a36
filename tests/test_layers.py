"""Imports run one way: what the folders say, read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    "version",
    "errors",
    "checks",
    "marks",
    "saving.refused",
    "saving.files",
    "stopping",
    "renamed",
    "plain",
    "ops",
    "denoising",
    "orders",
    "passes.trail",
    "passes.recent",
    "passes.uncollected",
    "passes.graph",
    "passes.rules",
    "passes.capture",
    "passes.written",
    "passes.analysis",
    "passes.rewrite",
    "passes.lower",
    "passes.shown",
    "passes.pipeline",
    "refresh",
    "lazy",
    "runtime",
    "head",
    "recipes",
    "api",
    "saving",
    "speed",
    "tuning",
    "reporting",
    "models",
    "rivals",
    "evaluate",
    "bench",
    "sampling",
    "cli",
    "__main__",
)
"""Each imports only those before it."""


def modules() -> dict[str, Path]:
    """Every module of the package by its name within it; ``passes`` is one of its folders."""
    files = [*(ROOT / "marche_fx").rglob("*.py"), *(ROOT / "passes").rglob("*.py")]
    found = {}
    for path in files:
        own = path.relative_to(ROOT).with_suffix("").parts
        own = own if own[0] == "passes" else own[1:]
        found[".".join(own)] = path
    return found


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules of the package that a file imports, also inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = name.split(".")[: len(name.split(".")) - node.level]
        elif node.module and node.module.split(".")[0] == "marche_fx":
            base = node.module.split(".")[1:]
            found |= {target for target in (".".join(base), ".".join([*base, "__init__"])) if target in known}
            continue
        else:
            continue
        target = [*base, *(node.module.split(".") if node.module else [])]
        for alias in node.names:
            for parts in ([*target, alias.name], target, [*target, "__init__"]):
                if ".".join(parts) in known:
                    found.add(".".join(parts))
                    break
            else:
                raise AssertionError(f"{name} imports {alias.name} of {'.'.join(target)}, which is no module here")
    return found - {name}


def import_graph() -> nx.DiGraph:
    found = modules()
    graph = nx.DiGraph()
    graph.add_nodes_from(found)
    for name, path in found.items():
        graph.add_edges_from((name, target) for target in imports(name, path, set(found)))
    return graph


def layer_of(name: str) -> int:
    """The layer of a module; the package itself, which lists what a user imports, is above all."""
    if name == "__init__":
        return len(LAYERS)
    if name == "passes.__init__":
        return LAYERS.index("passes.trail")
    return next(number for number, own in enumerate(LAYERS) if name == own or name.startswith(f"{own}."))


def test_every_module_has_a_layer() -> None:
    for name in modules():
        assert layer_of(name) >= 0


def test_no_module_imports_one_above_it() -> None:
    back = [(name, target) for name, target in import_graph().edges if layer_of(target) > layer_of(name)]
    assert not back


def test_no_modules_import_one_another_in_a_circle() -> None:
    circles = [sorted(own) for own in nx.strongly_connected_components(import_graph()) if len(own) > 1]
    assert not circles


def test_the_passes_import_of_the_package_only_errors_checks_and_operators() -> None:
    outside = {
        (name, target)
        for name, target in import_graph().edges
        if name.startswith("passes.") and not target.startswith("passes.")
    }
    assert {target for _, target in outside} == {"checks", "errors", "ops"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_circle_is_hidden_from_the_interpreter(name: str) -> None:
    text = modules()[name].read_text()
    assert "TYPE_CHECKING" not in text


LATE = (
    "torch._dynamo",
    "torch._inductor",
    "torch.fx.experimental.symbolic_shapes",
    "sympy",
    "networkx",
    "matplotlib",
    "typer",
)
"""Packages that take long to load and are not needed to import ours."""


def test_what_compiles_draws_or_parses_commands_is_loaded_when_it_is_used() -> None:
    program = f"import sys, marche_fx; print([own for own in {LATE} if own in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_every_folder_says_what_is_in_it() -> None:
    for name, path in modules().items():
        if name.endswith("__init__"):
            told = ast.get_docstring(ast.parse(path.read_text())) or ""
            own = {file.stem for file in path.parent.glob("*.py")} - {"__init__"}
            if name != "__init__":
                assert not {stem for stem in own if stem not in told}, name


def test_tests_mirror_the_tree() -> None:
    folders = {path.parent.relative_to(ROOT) for path in modules().values()}
    mirrored = {Path(*own.parts[1:]) if own.parts[0] == "marche_fx" else own for own in folders}
    assert not {str(own) for own in mirrored if not (ROOT / "tests" / own).is_dir()}
