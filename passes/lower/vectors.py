"""Which vector instructions kernels may use: those that PyTorch computes with itself are not tested again."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def granted_vectors() -> AbstractContextManager[None]:
    """Have the compiler take for granted the vector instructions that PyTorch was built with and computes with.

    In a new folder it would compile PyTorch's vector headers for each kind of processor that this one could be, which
    takes as long as a quarter of a first call, and load what came out in processes of their own, in every process. Any
    C++ compiler that is new enough for PyTorch's headers knows these instructions. What PyTorch itself does without,
    as instructions for 8-bit integers, is still tested, and ``torch._inductor.config.cpp.vec_isa_ok`` still decides.
    """
    # The compiler takes a second to load, so it waits until something is compiled.
    from torch._inductor import config

    if config.cpp.vec_isa_ok is not None or not computes_with_widest():
        return nullcontext()
    patched: AbstractContextManager[None] = config.patch({"cpp.vec_isa_ok": True})
    return patched


def computes_with_widest() -> bool:
    """Whether PyTorch computes with the widest vectors of an x86 processor: ``ATEN_CPU_CAPABILITY`` may forbid it."""
    widest = "AVX512" if torch.cpu._is_avx512_supported() else "AVX2"
    return torch.backends.cpu.get_cpu_capability() == widest
