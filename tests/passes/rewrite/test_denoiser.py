"""The parts of a denoiser are the denoiser, for any number of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marche_fx.passes.analysis.denoiser import find_denoiser
from marche_fx.passes.capture.any_rows import capture_any_rows
from marche_fx.passes.rewrite.denoiser import DenoiserParts, cut_denoiser
from tests.head.denoisers import KINDS, Denoiser

ROLES: Any = ("noisy", "time", "condition", "condition")


def parts_of(
    net: Denoiser, method: str, args: tuple[Tensor, ...], whole: tuple[bool, ...]
) -> tuple[DenoiserParts, dict[Any, Any]]:
    rows = capture_any_rows(net, method, args, {}, rows=len(args[0]))
    nodes = [own.node for own in rows.capture.inputs if own.node is not None]
    found = find_denoiser(rows, dict(zip(nodes, ROLES)))
    held = [own.output if is_whole else own.product for own, is_whole in zip(found.branches, whole)]
    parts = cut_denoiser(found, held)
    weights = dict(net.named_parameters())
    return parts, {
        **{node: weights[path] for node, path in rows.capture.weights.items()},
        **rows.capture.constants,
        **dict.fromkeys(nodes),
    }


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["forward", "forward_with_cfg"])
@pytest.mark.parametrize("whole", [(), (False, True)])
def test_one_after_the_other_they_compute_the_result(kind: str, method: str, whole: tuple[bool, ...]) -> None:
    torch.manual_seed(0)
    net = Denoiser(kind).double().eval()

    def arguments(rows: int) -> tuple[Tensor, ...]:
        t = torch.tensor(5) if kind == "scalar" else torch.full((rows,), 5)
        x, c = torch.randn(rows, 3).double(), torch.randn(rows, 5).double()
        return (x, t, c) if method == "forward" else (x, t, c, torch.tensor(3.0).double())

    parts, values = parts_of(net, method, arguments(8), whole)
    assert len(parts.held) == len(whole)
    for rows in (2, 4, 14):
        args = arguments(rows)
        nodes = [node for node, value in values.items() if value is None]
        own = {**values, **dict(zip(nodes, args)), parts.count: rows}
        for name, part in parts.named().items():
            if name == "shortcut":
                # Of the network it has the held values alone.
                for node in {*parts.frontier} - {*parts.held}:
                    del own[node]
            results = part.module(*(own[node] for node in part.inputs))
            own.update(zip(part.outputs, results))
        torch.testing.assert_close(results[0], getattr(net, method)(*args), rtol=1e-12, atol=1e-12)
