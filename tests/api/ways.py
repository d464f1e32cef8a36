"""Ways to have a model captured, one of which fails."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import marche_fx
from marche_fx import CaptureError
from tests.around import X


def explain(model: nn.Module) -> None:
    marche_fx.explain(model, X)


def call(model: nn.Module) -> None:
    marche_fx.transform(model, refresh="exact", compile=False, verify=False)(X)


def call_and_compare(model: nn.Module) -> None:
    marche_fx.transform(model, refresh="exact", compile=False)(X)


def fail(model: Any) -> None:
    model.fails = True
    with pytest.raises(CaptureError):
        marche_fx.explain(model, X)
