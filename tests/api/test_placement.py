"""Weights that are not where a step could read them are refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

import marche_fx
from marche_fx import UnsupportedModelError
from tests.api import tensor_parallel
from tests.sessions import transformer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_tensor_parallel_weights_are_refused_on_every_process(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", tensor_parallel.__name__, str(tmp_path / "meeting")]
    own = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=own, timeout=300)
    assert found.returncode == 0, found.stderr
    told = found.stdout.splitlines()
    for number in range(tensor_parallel.PROCESSES):
        assert sum(own.startswith(f"{number}: blocks.0.mlp.fc1.weight is a DTensor") for own in told) == 1, told
        assert f"{number}: True" in told, "a whole model is transformed beside it"


def test_weights_that_diffusers_moves_away_are_refused() -> None:
    model = transformer(1)
    apply_group_offloading(model, onload_device=CPU, offload_type="leaf_level")
    with pytest.raises(UnsupportedModelError, match=r"has the hook \w*GroupOffloadingHook, which moves weights away"):
        marche_fx.transform(model)


def with_hook(model: nn.Module) -> nn.Module:
    accelerate = pytest.importorskip("accelerate")
    found: nn.Module = accelerate.cpu_offload_with_hook(model, execution_device=CPU)[0]
    return found


def with_offloading(model: nn.Module) -> nn.Module:
    accelerate = pytest.importorskip("accelerate")
    accelerate.cpu_offload(model, execution_device=CPU)
    return model


@pytest.mark.parametrize("prepare", [with_hook, with_offloading])
def test_weights_that_accelerate_moves_away_are_refused(prepare: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(UnsupportedModelError, match="which moves weights away between calls"):
        marche_fx.transform(prepare(transformer(1)))


class AlignDevicesHook:
    """Has the name and the attribute of that of accelerate."""

    def __init__(self, offload: bool) -> None:
        self.offload = offload


@pytest.mark.parametrize("offload", [False, True])
def test_a_hook_that_only_places_inputs_is_none_of_these(offload: bool) -> None:
    model = transformer(1)
    model.get_submodule("blocks.0")._hf_hook = AlignDevicesHook(offload)  # type: ignore[assignment]
    if offload:
        with pytest.raises(UnsupportedModelError, match=r"blocks\.0 has the hook AlignDevicesHook"):
            marche_fx.transform(model)
    else:
        marche_fx.transform(model)
