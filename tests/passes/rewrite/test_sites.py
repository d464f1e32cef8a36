"""Which nodes of the rewritten step are of a site."""

from __future__ import annotations

import pytest
import torch

from marche_fx import ops
from marche_fx.passes.graph.source import module_path
from marche_fx.passes.pipeline import make_plan, rewrite
from marche_fx.passes.rewrite.sites import SITE
from tests.networks import BiasedAttention, EinsumAttention, FusedAttention, Transformer


@pytest.mark.parametrize("attention", [FusedAttention, BiasedAttention, EinsumAttention])
def test_products_caches_and_linears_are_labelled_and_nothing_else(attention: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    plan = make_plan(Transformer(9, 16, 2, attention=attention).eval(), "forward", (torch.randn(2, 9, 16),))
    graph = rewrite(plan, skip_unread=True, compile=False).split.incremental.module.graph
    labelled = {node: node.meta[SITE] for node in graph.nodes if SITE in node.meta}
    for node, label in labelled.items():
        kind, _, path = label.partition(" at ")
        module = module_path(node)
        if node.target is ops.update_cache:
            assert kind == "attention"
        elif kind == "attention":
            assert module == path
        else:
            assert module.rpartition(".")[0] == path.rpartition(".")[0] or path.startswith(f"{module}.")
    updates = [node for node in graph.nodes if node.target is ops.update_cache]
    # Keys and values of two attentions; the fifth keeps the result.
    assert sum(node in labelled for node in updates) == len(updates) - 1 == 4
    linears = [node for node in graph.nodes if "linear" in str(node.target) and ".mlp." in module_path(node)]
    assert len(linears) == 4
    assert all(labelled[node] == f"MLP at {module_path(node).rpartition('.')[0]}.fc2" for node in linears)
    others = [node for node in graph.nodes if module_path(node).endswith((".qkv", ".proj", ".q", "norm1", "head"))]
    assert not set(others) & labelled.keys()
