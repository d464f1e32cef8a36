"""Files are written whole or not at all, by any number of writers."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from marche_fx.errors import StorageError
from marche_fx.saving.files import (
    DamagedError,
    read_sealed,
    read_sealed_json,
    replacing,
    write_json,
    write_sealed,
    write_sealed_json,
)
from tests.flips import flipped


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_write_one_file_leave_the_file_of_one(tmp_path: Path) -> None:
    path, failed = tmp_path / "results", []
    together = threading.Barrier(4)

    def write(content: bytes) -> None:
        try:
            for _ in range(50):
                together.wait()
                write_sealed(path, content)
                found = read_sealed(path)
                assert found == found[:1] * 10_000
        except Exception as error:
            failed.append(error)
            together.abort()

    threads = [threading.Thread(target=write, args=(bytes([own]) * 10_000,)) for own in b"abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_once_have_files_of_their_own(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one", "the last to finish"


@pytest.mark.parametrize("content", [b"0", b"a" * 1000, bytes(range(256)) * 3])
def test_what_was_sealed_is_read(tmp_path: Path, content: bytes) -> None:
    write_sealed(tmp_path / "a", content)
    assert read_sealed(tmp_path / "a") == content
    for _ in flipped(tmp_path / "a", 100):
        with pytest.raises(DamagedError):
            read_sealed(tmp_path / "a")


def test_sealed_json_is_the_text_that_was_written(tmp_path: Path) -> None:
    path, values = tmp_path / "a.json", {"a": [1, 1 / 3, None], "b": {"c": "\u00e9"}, "d": float("inf")}
    write_sealed_json(path, values)
    assert read_sealed_json(path) == values
    for _ in flipped(path, 500):
        with pytest.raises(DamagedError):
            read_sealed_json(path)
    path.write_text(path.read_text().replace(": ", ":\t", 1))
    with pytest.raises(DamagedError):
        read_sealed_json(path)
    others: list[object] = [{}, [], {"sha256": ""}]
    for other in others:
        write_json(path, other)
        with pytest.raises(DamagedError):
            read_sealed_json(path)


def test_what_somebody_put_in_the_way_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("uuid.uuid4", lambda: SimpleNamespace(hex="known"))
    planted = tmp_path / f"results.{os.getpid()}-known.partial"
    planted.symlink_to(victim)
    with pytest.raises(StorageError, match="File exists"):
        write_sealed(tmp_path / "results", b"other")
    assert victim.read_text() == "precious"
    assert planted.is_symlink()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "results"
    {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[kind]()
    for read in (read_sealed, read_sealed_json):
        with pytest.raises(OSError, match="Not a regular file"):
            read(path)
