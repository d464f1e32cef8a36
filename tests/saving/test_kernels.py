"""Kernels are code: those of this user on this machine are used, others where the caller trusts them."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.utils import clear_caches

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.passes.lower.kept import KEPT, Stored
from marche_fx.passes.written.refused import UnusableError
from marche_fx.saving import kernels as own_kernels
from marche_fx.saving.kernels import HEADING, Kernels, beside, iter_parts, kernels_of, libraries_of, read_kernels
from marche_fx.saving.signing import NoSecretError, is_signed, own_folder, sign
from tests.around import EAGER, MOVED, X, transformer
from tests.networks import Transformer

ROOT = Path(__file__).parents[2]


def compiled(model: Any) -> Any:
    return marche_fx.transform(model, refresh=EAGER)


def decode(optimized: Any) -> None:
    repeats = optimized.position.shape[-1] // X.shape[-1]
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(X.repeat(1, 1, repeats))
        optimized(MOVED.repeat(1, 1, repeats))[:, 3].sum().item()


def wider() -> Transformer:
    return Transformer(20, 16, 2, depth=1).eval()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiler")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this user's own; what earlier tests compiled, in another folder, is forgotten."""
    KEPT.forget()
    clear_caches()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    yield tmp_path / "own"
    KEPT.forget()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    optimized = compiled(transformer())
    decode(optimized)
    marche_fx.save_captures(optimized, tmp_path / "steps")
    KEPT.forget()
    return tmp_path / "steps"


def loaded(path: Path, **options: Any) -> tuple[int, list[str]]:
    """How many kernels a model was given, and what was warned of."""
    KEPT.forget()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert marche_fx.load_captures(compiled(transformer()), path, **options)
    return sum(isinstance(own.code, Stored) for own in KEPT), [str(own.message) for own in told]


@pytest.mark.slow
def test_kernels_are_used_by_whoever_wrote_them_and_by_whom_trusts_them(
    path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(each.name for each in path.parent.iterdir()) == ["own", "steps", "steps.kernels"]
    used, told = loaded(path)
    assert used > 0
    assert told == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(own.with_name("another")))
    none, told = loaded(path)
    assert none == 0
    assert [
        each.startswith(f"{path}.kernels is not used, and steps are compiled again: they are code") for each in told
    ]
    assert len(told) == 1
    assert loaded(path, trust_kernels=True) == (used, [])
    # What others may read, or write, is no secret.
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    secret = own / "marche_fx" / "signing.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    secret.chmod(0o644)
    assert loaded(path)[0] == 0
    secret.chmod(0o600)
    secret.parent.chmod(0o777)
    assert loaded(path)[0] == 0
    secret.parent.chmod(0o700)
    assert loaded(path)[0] == used


@pytest.mark.slow
def test_kernels_of_another_file_or_changed_ones_are_not_used(path: Path, tmp_path: Path) -> None:
    other = compiled(wider())
    decode(other)
    marche_fx.save_captures(other, tmp_path / "other")
    kernels, others = beside(path), beside(tmp_path / "other")
    whole = kernels.read_bytes()
    kernels.write_bytes(others.read_bytes())
    assert loaded(path, trust_kernels=True)[1] == [
        f"{kernels} is not used, and steps are compiled again: they are of another file"
    ]
    kernels.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "it is damaged" in loaded(path, trust_kernels=True)[1][0]
    kernels.unlink()
    assert "No such file" in loaded(path, trust_kernels=True)[1][0]


@pytest.mark.slow
def test_files_hold_what_is_of_their_model_and_name_no_folder(path: Path, tmp_path: Path) -> None:
    own, other = (compiled(model) for model in (transformer(), wider()))
    decode(own)
    decode(other)
    alone, beside_it = (kernels_of(optimization_of(each)) for each in (own, other))
    assert alone.modules
    assert beside_it.modules
    assert not {each.key for each in alone.modules} & {each.key for each in beside_it.modules}
    kernels = [{name for name in each.libraries if name.count(".") > 1} for each in (alone, beside_it)]
    assert kernels[0]
    assert kernels[0] != kernels[1]
    assert {Path(name).name for name in kernels[0]} == {
        each.name for each in libraries_of([own.data for own in alone.modules])
    }
    content = path.read_bytes()
    for folder in (ROOT, tmp_path, Path.home(), Path(torch.__file__).parent):
        assert str(folder).encode() not in content


def test_a_secret_is_made_once_and_is_of_this_user(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = sign(b"kernels")
    assert is_signed(b"kernels", signature)
    assert not is_signed(b"others", signature)
    assert [each.name for each in own_folder().iterdir()] == ["signing.key"]
    secret = own_folder() / "signing.key"
    secret.write_bytes(b"short")
    with pytest.raises(NoSecretError, match="is damaged"):
        sign(b"kernels")
    secret.unlink()
    secret.symlink_to("/dev/zero")
    with pytest.raises(NoSecretError, match="cannot be used"):
        sign(b"kernels")
    secret.unlink()
    assert not is_signed(b"kernels", signature), "another secret"
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(NoSecretError, match="is not of this user"):
        sign(b"kernels")


def test_a_home_that_cannot_be_written_leaves_kernels_unsigned(tmp_path: Path, own: Path) -> None:
    own.write_text("a file, and no folder")
    digest, reason = own_kernels.write_kernels(tmp_path / "steps", Kernels((), {"ab/c.main.so": b"code"}))
    assert "cannot be used" in reason
    with pytest.raises(UnusableError, match="they are code"):
        read_kernels(tmp_path / "steps", digest, trust=False)
    assert read_kernels(tmp_path / "steps", digest, trust=True).libraries == {"ab/c.main.so": b"code"}
    assert (tmp_path / "steps.kernels").read_bytes().startswith(HEADING)


@pytest.mark.parametrize("sizes", [[1, 2], [5, -1], [True, 3], [4.0], ["4"], [2**70]])
def test_parts_that_are_not_all_of_it_are_refused(sizes: list[Any]) -> None:
    with pytest.raises(UnusableError):
        list(iter_parts(b"code", sizes))
