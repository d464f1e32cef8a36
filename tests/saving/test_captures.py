"""What one process captured and compiled serves the next; what was made for something else is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError
from marche_fx.api import captures as of_steps
from marche_fx.api.optimization import optimization_of
from marche_fx.passes.capture.digests import described
from marche_fx.passes.written.refused import UnusableError
from marche_fx.saving import captures as saved
from marche_fx.saving import fingerprint as printed
from marche_fx.saving.container import read_container
from marche_fx.saving.fingerprint import differences, fingerprint
from marche_fx.saving.kernels import Kernels, restore_kernels
from tests.around import EAGER, MOVED, X, captures, optimize, same, transformer
from tests.flips import flipped
from tests.networks import Transformer, small_mar


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    optimized = optimize(transformer())
    with torch.no_grad():
        optimized(X)
    path = tmp_path_factory.mktemp("saved") / "steps"
    marche_fx.save_captures(optimized, path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, written: bytes) -> Path:
    """A file with the captured step of `transformer`."""
    (tmp_path / "steps").write_bytes(written)
    return tmp_path / "steps"


@pytest.fixture
def no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("captured again")

    monkeypatch.setattr(of_steps, "make_plan", refused)


@torch.no_grad()
def test_a_saved_step_is_not_captured_again(path: Path, no_capture: None) -> None:
    model = transformer()
    for weight in model.parameters():
        weight.mul_(1.3)
    optimized = optimize(model, EAGER)
    assert marche_fx.load_captures(optimized, path)
    with marche_fx.decoding(optimized):
        assert same(optimized(X), model(X)), "weights are those of the model, not of the one that was saved"
        partial = optimized(MOVED)[:, 3]
    again = optimize(transformer(), EAGER)
    assert marche_fx.load_captures(again, path)
    with marche_fx.decoding(again):
        again(X)
        assert not same(again(MOVED)[:, 3], partial)
    with pytest.raises(AssertionError, match="captured again"):
        optimized(X[:1])


@torch.no_grad()
def test_a_generation_of_a_saved_mar_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mar = small_mar(side=4, buffer=2).eval()
    first, second = (marche_fx.transform(mar, compile=False) for _ in range(2))
    arguments: Any = {"labels": torch.tensor([0, 1]), "orders": torch.rand(2, 16).argsort(-1)}
    torch.manual_seed(0)
    expected = first.sample_tokens(2, 4, 2.0, **arguments)
    marche_fx.save_captures(first, tmp_path / "mar")
    assert marche_fx.load_captures(second, tmp_path / "mar")
    monkeypatch.setattr(of_steps, "make_plan", None)
    torch.manual_seed(0)
    assert torch.equal(second.sample_tokens(2, 4, 2.0, **arguments), expected)
    assert without_times(second) == without_times(first)


def without_times(optimized: nn.Module) -> dict[str, Any]:
    """The report of a model, without the passes that ran and without times."""
    found = marche_fx.report(optimized).to_dict()
    found["session"].pop("verdict")
    for own in found["session"]["causes"]:
        own.pop("seconds")
    for own in found["steps"]:
        del own["passes"]
    return found


def other_attribute(model: Transformer) -> None:
    model.blocks[0].norm1.eps = 0.5  # type: ignore[union-attr]


def other_shape(model: Transformer) -> None:
    model.head = nn.Linear(8, 5).eval()


def other_dtype(model: Transformer) -> None:
    model.double()


def a_hook(model: Transformer) -> None:
    model.head.register_forward_hook(lambda module, args, output: output * 2)


class OtherHead(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def other_class(model: Transformer) -> None:
    model.head.__class__ = OtherHead


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_attribute, "blocks.0.norm1.eps differ"),
        (other_shape, "head.weight, head.bias, head.out_features differ"),
        (other_dtype, "and 1. more differ|and .. more differ"),
        (a_hook, "head._forward_hooks"),
        (other_class, "the class of head differ"),
    ],
)
@torch.no_grad()
def test_what_was_made_for_another_model_is_not_used(path: Path, change: Callable[[Any], None], named: str) -> None:
    model = transformer()
    change(model)
    optimized = optimize(model)
    with pytest.warns(UserWarning, match=f"is not used: it was made for another model: .*{named}"):
        assert not marche_fx.load_captures(optimized, path)
    x = X.to(next(model.parameters()).dtype)
    assert same(optimized(x), model(x))


@torch.no_grad()
def test_what_changed_after_loading_is_captured_anew(path: Path) -> None:
    model = transformer()
    optimized = optimize(model)
    assert marche_fx.load_captures(optimized, path)
    optimized.double()
    assert same(optimized(X.double()), model(X.double())), "the weights are of another kind now"
    optimized.float()
    other_attribute(model)
    assert same(optimized(X), model(X))
    assert captures(optimized) == 1
    assert optimization_of(optimized).steps["forward"].captures.stored == []


def damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damaged, "it is damaged"),
        (lambda data: data[:-20], "it is damaged"),
        (lambda data: data[:30], "it is damaged"),
        (lambda data: b"PK" + data, "it was not written by"),
        (lambda data: data + b"\n", "it is damaged"),
        (lambda data: b"", "it was not written by"),
    ],
)
def test_a_damaged_file_is_not_used(path: Path, spoil: Callable[[bytes], bytes], reason: str) -> None:
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"steps is not used: {reason}"):
        assert not marche_fx.load_captures(optimize(transformer()), path)


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    for place in flipped(path, 100):
        reason = "it was (not )?written by" if place < len(saved.HEADING) else "it is damaged"
        with pytest.raises(UnusableError, match=reason):
            read_container(path, saved.HEADING)


def test_a_file_that_is_not_there_is_not_used(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="No such file"):
        assert not marche_fx.load_captures(optimize(transformer()), tmp_path / "none")


@pytest.mark.parametrize("name", ["Python", "torch", "marche_fx"])
def test_what_other_software_made_is_not_used(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = saved.software() | {name: "other"}
    monkeypatch.setattr(saved, "software", lambda: other)
    with pytest.warns(UserWarning, match=f"made for other software: {name} differ"):
        assert not marche_fx.load_captures(optimize(transformer()), path)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("torch.backends.cpu.get_cpu_capability", "another", "its vector instructions"),
        ("torch.cpu.get_capabilities", {"avx2": True}, "its vector instructions"),
        ("torch._inductor.cpu_vec_isa.x86_isa_checker", ["another"], "its vector instructions"),
        ("platform.machine", "riscv64", "processor"),
    ],
)
def test_what_was_made_for_another_processor_is_not_used(
    path: Path, place: str, value: object, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimized = optimize(transformer())
    assert marche_fx.load_captures(optimized, path)
    monkeypatch.setattr(place, lambda: value)
    with pytest.warns(UserWarning, match=f"is not used: it was made for another machine: .*{named}.* differ"):
        assert not marche_fx.load_captures(optimize(transformer()), path)


def test_the_gpus_of_a_model_are_part_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus = [torch.device("cuda", number) for number in (0, 1)]
    monkeypatch.setattr(printed, "weights", lambda model: [SimpleNamespace(device=own) for own in on_gpus])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    found = printed.machine(transformer())
    assert found["cuda:1"] == "GPU of cuda:1 (9, 0)"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert differences(found, printed.machine(transformer())) == ["cuda:0", "cuda:1"]


def test_there_is_nothing_to_save_before_a_step_was_called(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="decode once"):
        marche_fx.save_captures(optimize(transformer()), tmp_path / "steps")
    with pytest.raises(ArgumentError, match=r"not made by marche_fx\.transform"):
        marche_fx.save_captures(transformer(), tmp_path / "steps")
    with pytest.raises(ArgumentError, match=r"there is no folder .*nowhere"):
        marche_fx.save_captures(optimize(transformer()), tmp_path / "nowhere" / "steps")
    assert list(tmp_path.iterdir()) == []


OTHER_PROCESS = """
import sys, torch, marche_fx
from marche_fx.api import captures as of_steps
from tests.around import X, MOVED, EAGER, transformer
from marche_fx.passes.lower.kept import KEPT
optimized = marche_fx.transform(transformer(), refresh=EAGER)
if sys.argv[2] == "load":
    assert marche_fx.load_captures(optimized, sys.argv[1])
    of_steps.make_plan = None
with torch.no_grad(), marche_fx.decoding(optimized):
    optimized(X)
    print(optimized(MOVED)[:, 3].sum().item(), KEPT.count)
if sys.argv[2] == "save":
    marche_fx.save_captures(optimized, sys.argv[1])
"""


@pytest.mark.slow
def test_another_process_neither_captures_nor_compiles(tmp_path: Path) -> None:
    """In a compiler's folder of its own: all that it needs is in the file, and nothing is asked of the C++ compiler."""
    found: list[list[str]] = []
    built, compiler = tmp_path / "built", tmp_path / "g++"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {built}\nexec {shutil.which("g++")} "$@"\n')
    compiler.chmod(0o755)
    for name in ("save", "load"):
        built.write_text("")
        where = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name), "PYTHONHASHSEED": str(len(found))}
        where["PATH"] = f"{tmp_path}:{where['PATH']}"
        run = [sys.executable, "-W", "error::UserWarning", "-c", OTHER_PROCESS, str(tmp_path / "steps"), name]
        done = subprocess.run(run, env=where, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
        assert (".so" in built.read_text()) == (name == "save")
    assert found[0][0] == found[1][0]
    assert int(found[0][1]) > 0
    assert int(found[1][1]) == 0


def test_only_kernels_are_written_and_only_where_kernels_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    names = ["ab/kernel.main.so", "../ab/kernel.so", "/ab/kernel.so", "ab/../../kernel.so", "ab/kernel.py"]
    restore_kernels(Kernels((), dict.fromkeys(names, b"code")))
    assert [own.relative_to(tmp_path).as_posix() for own in tmp_path.rglob("*") if own.is_file()] == [
        "cache/ab/kernel.main.so"
    ]


class Slotted:
    pass


def test_a_fingerprint_tells_values_apart_and_not_addresses() -> None:
    assert described(1) != described(1.0) != described(True)
    assert described(Slotted()) == described(Slotted())
    assert described(len) != described(max)
    assert described(torch.ones(2)) != described(torch.zeros(2))
    assert described(torch.ones(2)) != described(torch.ones(2).double())
    scaled = [lambda x: x * 2, lambda x: x * 3, lambda x: x + 2]
    assert len({described(own) for own in scaled}) == 3
    model = transformer()
    before = fingerprint(model)
    assert before == fingerprint(transformer())
    model.blocks[0].norm1.weight.data.mul_(2)  # type: ignore[union-attr, operator]
    assert before == fingerprint(model), "values of weights do not count"
