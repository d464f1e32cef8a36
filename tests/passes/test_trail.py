"""What passes leave behind: for the report, and for PyTorch's own trail."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import torch
from torch._logging._internal import trace_log

import marche_fx
from marche_fx.passes.trail import Trail
from tests.networks import WithConvolution


class Artifacts(logging.Handler):
    """Keeps what is traced."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        metadata = json.loads(json.dumps(record.__dict__["metadata"]))
        if "artifact" in metadata:
            self.found[metadata["artifact"]["name"]] = record.__dict__["payload"]


@pytest.fixture
def artifacts() -> Iterator[Artifacts]:
    handler = Artifacts()
    trace_log.addHandler(handler)
    yield handler
    trace_log.removeHandler(handler)


def test_every_pass_leaves_what_it_found_where_pytorch_traces(artifacts: Artifacts) -> None:
    report = marche_fx.explain(WithConvolution(30, 16, 2).eval(), torch.randn(2, 30, 16))
    passes = report.steps[0].passes
    own = [name for name in artifacts.found if name.startswith("marche_fx_")]
    assert own == [f"marche_fx_{ran.name}" for ran in passes]
    for ran in passes:
        assert artifacts.found[f"marche_fx_{ran.name}"].startswith(f"{ran.found}, {ran.seconds:.3f} s\n")
    assert "first.attention (networks.py:" in artifacts.found["marche_fx_attention"]
    assert "full  convolution = aten.convolution at neighbours.convolution" in artifacts.found["marche_fx_region"]
    assert "aten.linear at first.mlp.fc1 (networks.py:" in artifacts.found["marche_fx_capture"]
    for name in ("split", "hooks"):
        text = artifacts.found[f"marche_fx_{name}"]
        assert "incremental:\n" in text
        assert "update_cache" in text


def test_nothing_is_put_into_words_where_nobody_traces() -> None:
    assert not trace_log.handlers
    assert Trail().run("split", lambda: 1, str, lambda _: pytest.fail("nobody traces")) == 1
