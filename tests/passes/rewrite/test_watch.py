"""Which inputs of the region tell that a token changed."""

from __future__ import annotations

import torch

from marche_fx.passes.rewrite.watch import find_watched
from tests.networks import BiasedAttention, MaskedTextModel, Transformer, small_mar
from tests.program import Program


def watched(program: Program) -> list[tuple[str, int | None, int | None]]:
    plan = program.plan
    found = find_watched(program.split, plan.region, plan.axes, plan.inputs)
    return sorted((own.node.name, own.batch_dim, own.token_dim) for own in found)


def test_ids_change_tokens_and_a_timestep_changes_samples() -> None:
    model = MaskedTextModel(7, 16, 2).eval()
    program = Program(model, "forward", [torch.zeros(3, 7, dtype=torch.long), torch.zeros(3)])
    names = watched(program)
    assert ("leaves_0", 0, 1) in names
    # What the timestep became, once for every block and half of it, without a token axis.
    assert {(batch, token) for name, batch, token in names if name != "leaves_0"} == {(0, None)}
    assert len(names) > 1


def test_a_mask_of_keys_and_weights_change_nothing() -> None:
    model = Transformer(7, 8, 2, attention=BiasedAttention).eval()
    program = Program(model, "forward", [torch.randn(3, 7, 8), torch.ones(3, 7, dtype=torch.bool)])
    assert watched(program) == [("leaves_0", 0, 1)]


def test_visibility_changes_nothing_but_tokens_and_class_do() -> None:
    mask = torch.zeros(2, 9)
    mask[:, 4:] = 1
    program = Program(small_mar().eval(), "forward_mae_encoder", [torch.randn(2, 9, 4), mask, torch.randn(2, 16)])
    # Class tokens are written among the others before the region starts.
    assert watched(program) == [("slice_scatter", 0, 1)]
