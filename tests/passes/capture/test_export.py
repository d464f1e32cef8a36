"""What is exported is taken apart as PyTorch does it, with less work."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import exported_program
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx.errors import CaptureError
from marche_fx.passes.capture.export import COMPOSITES, SPLIT, decomposed, decompositions, few_overridden
from marche_fx.passes.capture.step import Step, plain_mode
from tests.networks import Transformer, small_mar

STEP = Step(nn.Identity(), "forward", [], pytree.tree_structure(((), {})))


class Composites(nn.Module):
    """Operators that PyTorch takes apart in Python, that take themselves apart in C++, and that stay whole."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.norm = nn.RMSNorm(8)

    def forward(self, x: Tensor, ids: Tensor) -> Any:
        y = x + F.one_hot(ids, 8).to(x.dtype)
        y = y + self.lstm(self.norm(y))[0]
        q, k, v = torch.einsum("bnd,sd->sbnd", y, y[0, :3]).unbind(0)
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None]).squeeze(1)
        parts = torch.cat([*y.chunk(2, -1)][::-1], -1)
        y = F.interpolate(parts.transpose(1, 2)[..., None], scale_factor=(2.0, 1.0), mode="nearest")[..., 0]
        y = torch.stack(torch.broadcast_tensors(y, y[:, :1])).mean(0)
        z = F.cosine_similarity(y, y.roll(1, -1), dim=1)
        return y.transpose(1, 2).matmul(torch.eye(8)), F.dropout(z, training=False).softmax(-1)


def exported(kind: str) -> torch.export.ExportedProgram:
    with plain_mode():
        if kind == "composites":
            given: tuple[Any, ...] = torch.randn(2, 6, 8), torch.randint(0, 8, (2, 6))
            return torch.export.export(Composites().eval(), given, strict=False)
        block = small_mar(side=4).eval().decoder_blocks[0]
        return torch.export.export(block, (torch.randn(2, 6, 16),), strict=False)


def told(program: torch.export.ExportedProgram) -> list[Any]:
    return [(str(node), str(node.meta.get("val")), node.meta.get("stack_trace")) for node in program.graph.nodes]


@pytest.mark.parametrize("kind", ["composites", "a layer of MAR"])
def test_the_graph_is_the_one_that_overriding_all_operators_gives(kind: str) -> None:
    program = exported(kind)
    with plain_mode():
        expected = program.run_decompositions(dict(decompositions()))
    found = decomposed(program, STEP)
    assert str(found.graph) == str(expected.graph)
    assert told(found) == told(expected)
    assert str(found.graph_signature) == str(expected.graph_signature)


def test_few_operators_are_overridden_and_all_that_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[dict[Any, Any]] = []
    override = exported_program._override_composite_implicit_decomp

    def noting(operators: dict[Any, Any]) -> Any:
        taken.append(operators)
        return override(operators)

    monkeypatch.setattr(exported_program, "_override_composite_implicit_decomp", noting)
    program = exported("composites")
    decomposed(program, STEP)
    with plain_mode():
        program.run_decompositions(dict(decompositions()))
    few, everything = taken
    assert len(few) < len(everything) / 5
    assert {own: way for own, way in everything.items() if own in few} == few
    names = {operator.name() for operator in few}
    assert {
        f"aten::{own}" for own in ("linear", "layer_norm", "einsum", "matmul", "scaled_dot_product_attention")
    } <= names
    assert {own.removeprefix("aten::").split(".")[0] for own in names} & {*COMPOSITES}


def test_another_thread_has_operators_taken_apart_as_it_says() -> None:
    program, found = exported("composites"), []
    before = getattr(exported_program, SPLIT)

    def keep_nothing_whole() -> None:
        found.append(program.run_decompositions())

    with few_overridden():
        thread = threading.Thread(target=keep_nothing_whole)
        thread.start()
        thread.join()
    assert getattr(exported_program, SPLIT) is before
    assert torch.ops.aten.einsum.default not in {node.target for node in found[0].graph.nodes}


def test_a_pytorch_that_does_without_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(exported_program, SPLIT)
    with few_overridden():
        assert not hasattr(exported_program, SPLIT)


def test_what_cannot_be_taken_apart_is_told_of_in_the_users_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no graph of this operator")

    monkeypatch.setattr(exported_program, "_decompose_exported_program", failing)
    with pytest.raises(CaptureError, match=r"cannot capture .*forward: RuntimeError: no graph of this operator\n"):
        decomposed(exported("composites"), STEP)


@pytest.mark.parametrize("inside", [torch.autocast("cpu", torch.bfloat16), torch.enable_grad()])
@torch.no_grad()
def test_operators_inside_of_a_context_keep_their_lines_and_modules(inside: Any) -> None:
    class Inside(Transformer):
        def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
            with inside:
                x = super().forward(x)
            return 2 * x

    x = torch.randn(2, 6, 8)
    inner, outer = (marche_fx.explain(kind(6, 8, 2).eval(), x).steps[0].sites for kind in (Inside, Transformer))
    assert [(own.path, own.line) for own in inner] == [(own.path, own.line) for own in outer]
    assert all(own.path and own.line for own in inner)
