"""One process at a time writes in a place; what a dead one held is free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marche_fx import ArgumentError
from marche_fx.saving.locks import alone, held, held_folder

HOLDER = """
import sys
from pathlib import Path
from marche_fx.saving.locks import held_folder
with held_folder(Path(sys.argv[1]), "holding"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a folder until the end, or until it is killed."""
    run = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_of_another_process_is_refused_and_says_whose_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with holding(folder) as other:
        told = rf"results is in use by process {other.pid} on .*, holding since 20"
        with pytest.raises(ArgumentError, match=told), held_folder(folder, "trying"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (folder / ".lock").exists(), "it had no time to take it away"
        with held_folder(folder, "trying"):
            pass
    assert list(folder.iterdir()) == []


def test_threads_that_hold_one_file_take_turns(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "file", [0], [0]
    barrier = threading.Barrier(6)

    def write() -> None:
        barrier.wait()
        for _ in range(20):
            with held(path, 60, "writing"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(ArgumentError, match="cannot be written"), held_folder(tmp_path, "trying"):
        pass
    assert victim.read_text() == "precious"


def test_an_error_inside_leaves_it_free(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held_folder(tmp_path, "trying"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@alone("working")
def work(out: Path | None, value: int = 0) -> int:
    if out is not None:
        assert (out / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(ArgumentError, match=r"in use by process .*, working since"):
            work(out=out)
    return value


def test_a_function_runs_alone_in_its_folder(tmp_path: Path) -> None:
    assert work(tmp_path / "a", value=3) == 3
    assert work(None, 4) == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot be written"):
        work(tmp_path / "file")
