"""The compiled region computes what the graph does."""

from __future__ import annotations

import torch

from marche_fx.passes.lower.kept import KEPT
from marche_fx.passes.lower.lower import lower
from tests.networks import Transformer
from tests.program import Program


@torch.no_grad()
def test_one_compiled_graph_serves_every_layer_and_every_number_of_active_tokens() -> None:
    torch.manual_seed(0)
    model = Transformer(9, 8, 2, depth=3).eval()
    program = Program(model, "forward", [torch.randn(2, 9, 8)])
    assert lower(program.split, compile=False) is program.split.incremental.module
    KEPT.forget()
    before = KEPT.count
    compiled = lower(program.split, compile=True)
    caches = [[torch.zeros_like(cache) for cache in program.caches] for _ in range(2)]
    for count in (9, 4, 2, 7):
        x = torch.randn(2, 9, 8)
        active = torch.stack([torch.randperm(9)[:count] for _ in range(2)])
        for run, own in ((program.split.incremental.module, caches[0]), (compiled, caches[1])):
            program.run(run, program.values([x]), [active], own)
        for a, b in zip(*caches, strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert KEPT.count - before == 1
