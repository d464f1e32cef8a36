"""What a denoiser's operators depend on, told by dataflow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marche_fx import UnsupportedModelError
from marche_fx.passes.analysis.denoiser import Denoiser, find_denoiser
from marche_fx.passes.capture.any_rows import capture_any_rows
from tests.head.denoisers import Denoiser as Net

ROLES: Any = ("noisy", "time", "condition", "condition")


def found_in(net: nn.Module, method: str = "forward", *others: Tensor) -> Denoiser:
    x, t, c = torch.randn(8, 3), torch.full((8,), 5), torch.randn(8, 5)
    rows = capture_any_rows(net.eval(), method, (x, t, c, *others), {}, rows=8)
    nodes = [own.node for own in rows.capture.inputs if own.node is not None]
    return find_denoiser(rows, dict(zip(nodes, ROLES)))


def targets(nodes: Any) -> list[str]:
    return [str(node.target).split(".")[1] for node in nodes]


def test_operators_are_sorted_by_what_they_depend_on() -> None:
    found = found_in(Net("adaln", depth=1))
    assert targets(found.still) == ["linear"]
    assert targets(found.timed)[-1] == "linear"
    assert targets(found.slow) == ["add", "silu", "linear"]
    assert targets(found.kept) == ["linear"], "its parts, 1 + scale and tanh(gate) cost no more than to keep it"
    assert targets(found.noisy).count("linear") == 3
    assert found.is_stacked
    assert found.joined is None
    # 4 -> 6; 5 -> 6; 6 -> 18; 3 -> 6, 6 -> 6 and 6 -> 3, multiplied and added.
    assert found.flops == {"still": 60.0, "timed": 48.0, "slow": 216.0, "network": 144.0, "around": 0.0}


def test_guidance_halves_are_a_cat_of_a_noisy_value_with_itself() -> None:
    found = found_in(Net("adaln"), "forward_with_cfg", torch.tensor(2.0))
    assert found.joined is not None
    assert targets([found.joined]) == ["cat"]
    assert {"slice"} == {*targets(found.mixes)}
    assert found.flops["around"] == 0.0
    rows = {node for node in found.network if node not in found.kept}
    assert found.joined not in rows
    assert all(found.rows.is_of_rows(node) for node in found.network)


class Centred(Net):
    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        slow = [own - own.mean(0) for own in self.slow_values(t, c)]
        return self.rest(x, c, slow)


class Unmoved(Net):
    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self.slow_values(t, c)[0]


@pytest.mark.parametrize(
    ("net", "message"),
    [(Centred, r"rows meet in aten\.mean \(test_denoiser\.py:\d+\)"), (Unmoved, "so it is no denoiser")],
)
def test_what_is_no_denoiser_of_rows_is_refused(net: type[Net], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        found_in(net("adaln"))
