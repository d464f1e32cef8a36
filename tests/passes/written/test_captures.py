"""A capture read from JSON is the capture that was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Generator, Tensor, fx, nn

from marche_fx.passes.analysis.plan import Plan
from marche_fx.passes.capture.arguments import opened
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.captured import Capture
from marche_fx.passes.graph.source import describe
from marche_fx.passes.pipeline import plan_of
from marche_fx.passes.rewrite.split import split
from marche_fx.passes.written.captures import Reader, write_capture
from marche_fx.passes.written.constants import Constants
from marche_fx.reporting.step_report import step_report
from tests.generated.arguments import make_arguments
from tests.generated.choose import recipes
from tests.generated.model import build
from tests.generated.recipe import Recipe
from tests.graphs import capture_function, graph_text
from tests.networks import small_mar
from tests.zoo import ENTRIES
from tests.zoo.captured import captured
from tests.zoo.entry import Entry


def again(own: Capture) -> Capture:
    """A capture as another process reads it."""
    constants = Constants(nn.Module())
    text = json.dumps(write_capture(own, constants), allow_nan=False)
    found, guards = Reader(Constants(nn.Module(), constants.tensors), ()).capture(json.loads(text))
    assert guards is None
    return found


def shapes(graph: fx.Graph) -> list[Any]:
    return [str(getattr(node.meta.get("val"), "shape", None)) for node in graph.nodes]


def check_same(found: Capture, original: Capture) -> None:
    """The same graph, sources and sizes, and the same plan, down to the rewritten graph and the report."""
    graphs = [own.graph_module.graph for own in (found, original)]
    assert graph_text(graphs[0]) == graph_text(graphs[1])
    assert shapes(graphs[0]) == shapes(graphs[1])
    assert [describe(node) for node in graphs[0].nodes] == [describe(node) for node in graphs[1].nodes]
    assert [own.name for own in found.weights] == [own.name for own in original.weights]
    assert list(found.weights.values()) == list(original.weights.values())
    assert (found.step, found.in_spec, found.out_spec, found.autocast) == (
        *(original.step, original.in_spec, original.out_spec, original.autocast),
    )
    for own, other in zip(found.constants.values(), original.constants.values(), strict=True):
        assert torch.equal(own, other)
    texts = [rewritten(plan_of(own)) for own in (found, original)]
    assert texts[0] == texts[1]


def rewritten(plan: Plan) -> tuple[str, str, str]:
    parts = split(plan.dense.graph_module, plan.axes, plan.region, plan.sites)
    report = step_report(plan, parts)
    return graph_text(parts.incremental.module.graph), graph_text(parts.epilogue.module.graph), str(report.to_dict())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_models_nobody_here_wrote(entry: Entry) -> None:
    original = captured(entry, 3, entry.tokens[-1]).program.plan.original
    check_same(again(original), original)


@pytest.mark.slow
@settings(max_examples=15)
@given(recipe=recipes())
def test_generated_models(recipe: Recipe) -> None:
    recipe = recipe.captured
    args, kwargs = make_arguments(recipe, Generator().manual_seed(recipe.seed))
    original = capture(build(recipe), "forward", args, kwargs)
    found = again(original)
    check_same(found, original)
    assert found.accepts(*opened((args, kwargs)))


@pytest.mark.parametrize("step", ["forward_mae_encoder", "forward_mae_decoder"])
def test_a_step_that_drops_tokens_accepts_other_numbers_of_them(step: str) -> None:
    mar = small_mar(side=4, buffer=2).eval()

    def arguments(masked: int) -> tuple[Tensor, ...]:
        mask = torch.zeros(2, 16)
        mask[:, :masked] = 1
        x = torch.randn(2, 16, 4) if step.endswith("encoder") else torch.randn(2, 18 - masked, 16)
        return (x, mask, torch.randn(2, 16)) if step.endswith("encoder") else (x, mask)

    original = capture(mar, step, arguments(7))
    found = again(original)
    check_same(found, original)
    assert found.accepts(arguments(7), {})
    assert found.accepts(arguments(4), {})
    assert not found.accepts((arguments(4)[0].double(), *arguments(4)[1:]), {})


def test_a_constant_keeps_its_value() -> None:
    table = torch.arange(5.0)
    original = capture_function(
        lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x + table), torch.randn(2, 3, 5)
    )
    check_same(again(original), original)
