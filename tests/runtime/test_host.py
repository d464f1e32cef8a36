"""What NumPy sees of a tensor is what is in its memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from marche_fx.runtime.host import bytes_of, on_host

DTYPES = (
    *(torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.complex128),
)

LAYOUTS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda own: own,
    lambda own: own.mT if own.ndim > 1 else own,
    lambda own: own[..., ::2],
    lambda own: own[1:],
    lambda own: own.conj() if own.is_complex() else own,
    lambda own: own.imag if own.is_complex() else own,
    lambda own: own.conj().imag if own.is_complex() else own,
    lambda own: own[None].expand(3, *own.shape),
)


@settings(max_examples=200)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 99),
)
def test_bytes_are_those_of_the_elements_in_order(
    dtype: torch.dtype, shape: list[int], layout: Callable[[Tensor], Tensor], seed: int
) -> None:
    torch.manual_seed(seed)
    own = layout(torch.randint(-4, 5, shape).to(dtype) if not dtype.is_complex else torch.randn(shape, dtype=dtype))
    plain = own.resolve_conj().resolve_neg().contiguous().flatten()
    expected = plain.view(torch.uint8).numpy() if plain.numel() else np.zeros(0, np.uint8)
    assert np.array_equal(bytes_of(own), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_copy_is_made_and_gradients_do_not_matter(dtype: torch.dtype) -> None:
    own = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    seen = on_host(own)
    with torch.no_grad():
        own.mul_(3)
    assert np.array_equal(seen, on_host(own))
    assert bytes_of(torch.tensor(1.5)).size == 4
