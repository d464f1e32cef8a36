"""Products with packed weights are those with the weights of now."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.errors import ArgumentError
from marche_fx.passes.lower import packed
from marche_fx.passes.lower.packed import PACKED
from tests.networks import Transformer

packed_linear = torch.ops.marche_fx.packed_linear

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products are packed too."""
    monkeypatch.setattr(packed, "SMALL", 0)


def through_half(weight: Tensor) -> None:
    """Rounded, in memory that the allocator may take where the weight was before."""
    weight.data = weight.data.half()
    weight.data = weight.data.float()


CHANGES: dict[str, Callable[[nn.Linear], object]] = {
    "written": lambda own: own.weight.mul_(2),
    "loaded": lambda own: own.load_state_dict({"weight": torch.randn(64, 64), "bias": torch.randn(64)}),
    "a part written": lambda own: own.weight[3:5].fill_(1),
    "other memory": lambda own: setattr(own.weight, "data", torch.randn(64, 64)),
    "rounded": lambda own: through_half(own.weight),
    "another": lambda own: setattr(own, "weight", nn.Parameter(torch.randn(64, 64))),
}


@needs_onednn
@given(changes=st.lists(st.sampled_from(sorted(CHANGES)), max_size=5))
@torch.no_grad()
def test_the_weight_is_that_of_now(changes: list[str]) -> None:
    torch.manual_seed(0)
    own, x = nn.Linear(64, 64), torch.randn(5, 64)
    for change in ["", *changes]:
        if change:
            CHANGES[change](own)
        before = PACKED.count
        for _ in range(3):
            torch.testing.assert_close(packed_linear(x, own.weight, own.bias), own(x), atol=1e-4, rtol=1e-4)
        assert PACKED.count == before + 1, "packed once"


@needs_onednn
@torch.no_grad()
def test_a_packed_copy_lives_as_long_as_its_weight() -> None:
    own, x = nn.Linear(64, 64), torch.randn(5, 64)
    gc.collect()
    before = len(PACKED.known)
    packed_linear(x, own.weight)
    assert (len(PACKED.known), PACKED.bytes_of([own.weight, x])) == (before + 1, 64 * 64 * 4)
    del own
    gc.collect()
    assert len(PACKED.known) == before


@needs_onednn
def test_a_weight_whose_writes_nobody_counts_is_not_packed() -> None:
    with torch.inference_mode():
        weight, x, before = torch.randn(64, 64), torch.randn(5, 64), PACKED.count
        torch.testing.assert_close(packed_linear(x, weight), F.linear(x, weight))
        weight.mul_(2)
        torch.testing.assert_close(packed_linear(x, weight), F.linear(x, weight))
    assert PACKED.count == before


@torch.no_grad()
def generated(optimized: nn.Module) -> Tensor:
    x, found = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0)), []
    with marche_fx.decoding(optimized):
        for step in range(4):
            found.append(optimized(x)[:, 3:6].clone())
            x[:, step] += 1
    return torch.stack(found)


@needs_onednn
def test_steps_are_the_same_with_packed_weights_which_are_packed_once() -> None:
    torch.manual_seed(0)
    model = Transformer(40, 16, 2, depth=2).eval().requires_grad_(False)
    names = [*model.state_dict()]
    refresh = SelectiveRefresh(0.1, warmup=1)
    own = marche_fx.transform(model, refresh=refresh, pack_weights=True)
    plain = marche_fx.transform(model, refresh=refresh, compile=False)
    before = PACKED.count
    torch.testing.assert_close(generated(own), generated(plain), atol=1e-4, rtol=1e-4)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert PACKED.count == before + len(linears)
    with torch.no_grad():
        for module in linears:
            module.weight.mul_(0.5)
    torch.testing.assert_close(generated(own), generated(plain), atol=1e-4, rtol=1e-4)
    assert PACKED.count == before + 2 * len(linears)
    assert [*own.state_dict()] == names
    (step,) = marche_fx.report(own).steps
    assert step.packed_bytes == sum(module.weight.nbytes for module in linears)
    assert "packed copies of weights" in str(marche_fx.report(own))
    assert marche_fx.report(plain).steps[0].packed_bytes == 0
    assert "packed copies of weights" not in str(marche_fx.report(plain))
    assert optimization_of(own).settings.pack_weights


def test_it_is_for_compiled_steps() -> None:
    with pytest.raises(ArgumentError, match="pack_weights is for compiled steps"):
        marche_fx.transform(Transformer(9, 8, 2).eval(), compile=False, pack_weights=True)


@torch.no_grad()
def test_a_step_without_such_weights_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing need be compiled to know.
    monkeypatch.setattr("marche_fx.passes.pipeline.lower", lambda own, **_: own.incremental.module)
    model = Transformer(9, 8, 2, depth=1).double().eval()
    optimized, x = marche_fx.transform(model, pack_weights=True), torch.randn(2, 9, 8, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"and \w+\.forward has none of these: it computes as without"):
        torch.testing.assert_close(optimized(x), model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(optimized(x), model(x))
