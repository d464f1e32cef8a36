"""The same claims on every device that is here: the processor, and a GPU where there is one."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import FullRefresh, SelectiveRefresh
from marche_fx.models import load_fashion_mar
from marche_fx.models.text import TextDiffusion, generate
from tests.runtime.graphs.networks import Sorted
from tests.sessions import inputs, positions, records, transformer

needs_a_gpu = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_a_gpu)])
compiled_or_not = pytest.mark.parametrize(
    ("device", "compile"),
    [("cpu", False), pytest.param("cuda", False, marks=needs_a_gpu), pytest.param("cuda", True, marks=needs_a_gpu)],
)
"""Compiled code on the processor has tests of its own."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.1}
"""Of an element, where results are of the size of one. Float32 products on a GPU may be rounded to ten bits."""


def decoded(model: nn.Module, steps: list[Tensor]) -> list[Tensor]:
    """The rows that are read of each step."""
    with marche_fx.decoding(model):
        return [model(x)[:, 5:9].clone() for x in steps]


def text_model() -> TextDiffusion:
    torch.manual_seed(0)
    return TextDiffusion(200, width=64, depth=2, heads=2, hidden=96).eval()


@compiled_or_not
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_full_refresh_is_the_original(device: str, compile: bool, dtype: torch.dtype) -> None:
    model = transformer(2).to(device, dtype)
    steps = inputs(5, dtype, device)
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=compile)
    for x, found in zip(steps, decoded(optimized, steps), strict=True):
        assert found.device.type == device
        torch.testing.assert_close(found, model(x)[:, 5:9], atol=TOLERANCE[dtype], rtol=0.0)


@compiled_or_not
@torch.no_grad()
def test_a_partial_step_computes_what_it_does_on_the_processor(device: str, compile: bool) -> None:
    """The same tokens, and the same values."""
    policy = SelectiveRefresh(0.1, warmup=1)
    reference = marche_fx.transform(transformer(2), refresh=policy, compile=False)
    expected = decoded(reference, inputs(8))
    optimized = marche_fx.transform(transformer(2).to(device), refresh=policy, compile=compile)
    found = decoded(optimized, inputs(8, device=device))
    for own, other in zip(records(optimized), records(reference), strict=True):
        assert torch.equal(positions(own).cpu(), positions(other))
    for value, known in zip(found, expected, strict=True):
        torch.testing.assert_close(value.cpu(), known, atol=TOLERANCE[torch.float64], rtol=0.0)
    assert min(own.active for own in records(optimized)) < 20


@on_every_device
@torch.no_grad()
def test_a_loop_over_pieces_is_exact_or_partial_as_asked(device: str) -> None:
    model = text_model().double().to(device)
    prompt = torch.randint(1, 200, (2, 16), generator=torch.Generator().manual_seed(1)).to(device)
    expected = generate(model, prompt, 32, mask_id=0, block_length=16, steps_per_block=8)
    exact = marche_fx.transform(model, refresh="exact", compile=False)
    default = marche_fx.transform(model, compile=False)
    with marche_fx.decoding(exact):
        found = generate(exact, prompt, 32, mask_id=0, block_length=16, steps_per_block=8)
    assert torch.equal(found, expected)
    with marche_fx.decoding(default):
        generate(default, prompt, 32, mask_id=0, block_length=16, steps_per_block=8)
    session = marche_fx.report(default).session
    assert session is not None
    assert session.rows_ratio < 0.8


@on_every_device
@torch.no_grad()
def test_the_loop_of_a_mar_is_the_originals_at_a_full_refresh(device: str) -> None:
    mar = load_fashion_mar(num_sampling_steps=4).double().to(device)
    optimized = marche_fx.transform(mar, refresh=FullRefresh(), compile=False)
    labels = torch.arange(2, device=device)
    orders = mar.sample_orders(2)
    noise = torch.randn(2, mar.seq_len, 4, mar.token_embed_dim, dtype=torch.float64, device=device)
    images = [own.sample_tokens(2, 6, cfg=2.0, labels=labels, orders=orders, noise=noise) for own in (mar, optimized)]
    torch.testing.assert_close(images[1], images[0], atol=1e-6, rtol=0.0)


@on_every_device
@torch.no_grad()
def test_a_saved_capture_is_used_on_its_device(device: str, tmp_path: Path) -> None:
    model, steps = transformer(2).to(device), inputs(6, device=device)
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    expected = decoded(optimized, steps)
    marche_fx.save_captures(optimized, tmp_path / "captured")
    loaded = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    assert marche_fx.load_captures(loaded, tmp_path / "captured")
    for one, other in zip(decoded(loaded, steps), expected, strict=True):
        assert torch.equal(one, other)


@on_every_device
@torch.no_grad()
def test_a_session_leaves_nothing_to_the_garbage_collector(device: str) -> None:
    steps = inputs(6, device=device)
    tokens = marche_fx.transform(transformer(2).to(device), refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    pieces = marche_fx.transform(text_model().to(device), compile=False)
    prompt = torch.ones(1, 16, dtype=torch.int64, device=device)

    def decode() -> None:
        decoded(tokens, steps)
        with marche_fx.decoding(pieces):
            generate(pieces, prompt, 32, mask_id=0, block_length=16, steps_per_block=8)

    sizes = []
    decode()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            decode()
            sizes.append(memory(device))
    finally:
        gc.enable()
    assert len(set(sizes)) == 1


def memory(device: str) -> int:
    """Bytes in use on a GPU; the number of tensors of the process, whose memory nobody counts."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return sum(type(own) is Tensor for own in gc.get_objects())


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_a_gpu)])
@torch.no_grad()
def test_steps_run_under_autocast_on_a_gpu(device: str) -> None:
    model, steps = transformer(2).float().to(device), inputs(6, torch.float32, device)
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=False)
    with torch.autocast(device, torch.bfloat16):
        found = decoded(optimized, steps)
        for x, own in zip(steps, found, strict=True):
            assert own.dtype == model(x).dtype
            torch.testing.assert_close(own, model(x)[:, 5:9], atol=0.1, rtol=0.0)


@compiled_or_not
@torch.no_grad()
def test_a_child_is_called_as_it_is_on_its_device(device: str, compile: bool) -> None:
    model, steps = Sorted().eval().to(device, torch.float32), inputs(4, torch.float32, device)
    graphs = device == "cuda"
    optimized = marche_fx.transform(
        model, refresh=FullRefresh(), compile=compile, token_wise="mixtures.*", cuda_graphs=graphs
    )
    for x, found in zip(steps, decoded(optimized, steps), strict=True):
        assert found.device.type == device
        torch.testing.assert_close(found, model(x)[:, 5:9], atol=TOLERANCE[torch.float32], rtol=0.0)
