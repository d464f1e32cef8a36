"""A running profiler is told which site is computed, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import profile

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.passes.lower.ranges import RangeInterpreter, Ranges
from tests.networks import BiasedAttention, Transformer

SITES = [
    "marche_fx: attention at blocks.0.attention",
    "marche_fx: MLP at blocks.0.mlp.fc2",
    "marche_fx: attention at blocks.1.attention",
    "marche_fx: MLP at blocks.1.mlp.fc2",
]


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_profile_has_a_range_for_each_site(compile: bool) -> None:
    torch.manual_seed(0)
    model = Transformer(30, 16, 2, attention=BiasedAttention).eval()
    optimized = marche_fx.transform(model, compile=compile)
    x = torch.randn(2, 30, 16)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for step in range(3):
            x[:, step] += 1
            plain = optimized(x)[:, 5] + 0
        with profile() as found:
            profiled = optimized(x)[:, 5] + 0
    assert torch.equal(plain, profiled)
    ranges = [own for own in found.events() if own.name.startswith("marche_fx: ")]
    told = [f"marche_fx: {name}" for own in ranges for name in own.name.removeprefix("marche_fx: ").split(", ")]
    # A site may be left for the measurement of a signal.
    assert list(dict.fromkeys(told)) == SITES
    for site in SITES if not compile else []:
        inside = {child.name for own in ranges if own.name == site for child in own.cpu_children}
        assert ("aten::softmax" in inside) == ("attention" in site)
        assert ("aten::gelu" in inside) == ("MLP" in site)


def test_without_a_profiler_the_region_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("nobody profiles")

    monkeypatch.setattr(RangeInterpreter, "__init__", refused)
    optimized = marche_fx.transform(Transformer(30, 16, 2).eval(), compile=False)
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(torch.randn(2, 30, 16))[:, 5].sum()
        with pytest.raises(AssertionError, match="nobody profiles"), profile():
            optimized(torch.randn(2, 30, 16))[:, 5].sum()
    (program,) = optimization_of(optimized).steps["forward"].programs
    assert isinstance(program.incremental, Ranges)


def test_a_range_ends_where_a_node_fails() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_function(torch.ops.aten.view.default, (x, [7]))
    node.meta["marche_fx_site"] = "attention at a"
    graph.output((node,))
    running = RangeInterpreter(torch.fx.GraphModule({}, graph))
    with profile() as found:
        with pytest.raises(RuntimeError):
            running.run(torch.zeros(3))
        # Nobody else would end it, as long as the error and its frames are held.
        assert running.range is None
        torch.zeros(2).exp()
    (own,) = [event for event in found.events() if event.name == "marche_fx: attention at a"]
    assert "aten::exp" not in {child.name for child in own.cpu_children}
