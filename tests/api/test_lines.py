"""The line that a refusal names is the model's, not that of a package that the model calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import einops
import pytest
from torch import Tensor, nn

from marche_fx import CaptureError, UnsupportedModelError
from tests.around import Around, X, refused

PACKAGE = """
from torch import nn

def asks(x):
    if x.sum() > 0:
        return x
    return -x

def keep(store, x):
    store["x"] = x

class Asks(nn.Module):
    def forward(self, x):
        return asks(x)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package that somebody installed."""
    folder = tmp_path / "site-packages"
    (folder / "installed_package").mkdir(parents=True)
    (folder / "installed_package" / "__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(folder))
    import installed_package  # type: ignore[import-not-found]

    yield installed_package
    del sys.modules["installed_package"]


def test_functions_of_installed_packages_are_not_the_model(package: Any) -> None:
    model = Around(lambda model, x: package.asks(model.inner(x)))
    refused(model, CaptureError, r"Around\.forward \(test_lines\.py:\d+, `.*package\.asks\(", X)


def test_modules_of_installed_packages_are_the_model(package: Any) -> None:
    asks: nn.Module = package.Asks()
    model = Around(lambda model, x: model.asks(model.inner(x)), asks=asks)
    refused(model, CaptureError, r"\(__init__\.py:\d+, `if x\.sum\(\) > 0:`\)", X)


def test_what_an_installed_package_leaves_in_an_argument_is_told_by_the_line_that_calls_it(package: Any) -> None:
    def forward(model: Any, x: Tensor, store: dict[str, Tensor]) -> Tensor:
        x = model.inner(x)
        package.keep(store, x)
        return x

    line = forward.__code__.co_firstlineno + 2
    refused(Around(forward), UnsupportedModelError, rf"'store' in test_lines\.py:{line}", X, store={})


def asks_inside(x: Tensor, axes: Any) -> Tensor:
    return x.sum(axes) if x.sum() > 0 else x.mean(axes)


THROUGH: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "wrong": lambda model, x: einops.rearrange(model.inner(x), "b (n k) d -> b n k d", k=7),
    "branch": lambda model, x: einops.reduce(model.inner(x), "b n d -> b n", asks_inside),
}


@pytest.mark.parametrize("name", THROUGH)
def test_einops_is_not_the_model(name: str) -> None:
    refused(Around(THROUGH[name]), CaptureError, r"Around\.forward.*\(test_lines\.py:\d+, `", X)
