"""A first call asks the C++ compiler for its kernels, and not which vector instructions PyTorch computes with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch._inductor import config

from marche_fx.passes.lower.vectors import computes_with_widest, granted_vectors

FIRST_CALL = """
import json, torch, marche_fx
from torch._inductor import cpu_vec_isa
from marche_fx.passes.capture import capture
from marche_fx.passes.lower.kept import KEPT
from tests.around import EAGER, MOVED, X
from tests.networks import Transformer

export, exports = capture.export, []
capture.export = lambda *args: exports.append(args[0].name) or export(*args)
torch.manual_seed(0)
optimized = marche_fx.transform(Transformer(20, 8, 2, depth=4).eval(), refresh=EAGER)
with torch.no_grad(), marche_fx.decoding(optimized):
    optimized(X)[:, 3].sum().item()
    optimized(MOVED)[:, 3].sum().item()
told = {"exports": len(exports), "pieces": KEPT.count, "vectors": str(cpu_vec_isa.pick_vec_isa())}
print(json.dumps(told))
"""


def run(folder: Path, **environment: str) -> tuple[dict[str, Any], list[str]]:
    """What a first call took in a new folder of the compiler, and the sources that C++ libraries were made of."""
    built, compiler = folder / "built", folder / "g++"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {built}\nexec {shutil.which("g++")} "$@"\n')
    compiler.chmod(0o755)
    where = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiler")} | environment
    where["PATH"] = f"{folder}:{where['PATH']}"
    done = subprocess.run([sys.executable, "-c", FIRST_CALL], env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sources = [
        Path(word).read_text(encoding="utf-8")
        for line in built.read_text(encoding="utf-8").splitlines()
        for word in line.split()
        if word.endswith(".cpp") and ".so" in line
    ]
    return json.loads(done.stdout.splitlines()[-1]), sources


@pytest.mark.slow
@pytest.mark.skipif(not computes_with_widest(), reason="PyTorch computes with other vectors here")
def test_a_first_call_compiles_kernels_once_and_tests_no_vectors(tmp_path: Path) -> None:
    told, sources = run(tmp_path)
    assert told["exports"] == 1
    # Layers alike, and the last one, of which few rows are read: for the full step and the partial one.
    assert told["pieces"] == 2
    assert "avx" in told["vectors"]
    assert not [own for own in sources if "__avx_chk_kernel" in own]
    kernels = [own for own in sources if "cpp_prefix.h" in own]
    assert len({*kernels}) == len(kernels) > 0


def test_a_user_who_settles_vectors_is_heard() -> None:
    for settled in (False, True):
        with config.patch({"cpp.vec_isa_ok": settled}), granted_vectors():
            assert config.cpp.vec_isa_ok is settled


def test_vectors_are_granted_while_something_is_compiled_alone() -> None:
    assert config.cpp.vec_isa_ok is None
    with granted_vectors():
        assert config.cpp.vec_isa_ok is (True if computes_with_widest() else None)
    assert config.cpp.vec_isa_ok is None


def test_what_pytorch_was_told_to_do_without_is_not_granted() -> None:
    code = "from marche_fx.passes.lower.vectors import computes_with_widest as found; print(found())"
    where = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
