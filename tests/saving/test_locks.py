"""One process at a time writes in a place; what a dead one held is free."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from marche_fx import ArgumentError, tune, tune_recipe
from marche_fx.bench import Settings
from marche_fx.bench.command import Wanted, run_bench
from marche_fx.evaluate.run import evaluate, evaluate_drift
from marche_fx.evaluate.text.run import study_text
from marche_fx.evaluate.tokens.run import study_tokens
from marche_fx.models.text.training import train_text
from marche_fx.models.tokens.command import run_training as train_tokens
from marche_fx.models.train import train
from marche_fx.saving import locks
from marche_fx.saving.captures import HEADING
from marche_fx.saving.container import read_container
from marche_fx.saving.kernels import read_kernels
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


def test_a_lock_that_is_always_replaced_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def replaced(lock: Path, descriptor: int) -> bool:
        asked.append(lock)
        return False

    monkeypatch.setattr(locks, "is_still", replaced)
    monkeypatch.setattr(locks, "GRACE", 0.1)
    with pytest.raises(ArgumentError, match="in use by processes that take turns"), held_folder(tmp_path, "trying"):
        pass
    assert len(asked) > 1, "somebody who has just let it go is no reason to give up"


def test_what_a_kill_left_half_written_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.12-ab3.partial", "b.12-ab3.partial", "own.partial", "a"):
        (tmp_path / name).touch()
    with held(tmp_path / "a", 0, "writing"):
        assert sorted(own.name for own in tmp_path.iterdir()) == [".a.lock", "a", "b.12-ab3.partial", "own.partial"]
    with held_folder(tmp_path, "writing"):
        assert sorted(own.name for own in tmp_path.iterdir()) == [".lock", "a", "own.partial"]


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


RUNS = [evaluate, evaluate_drift, study_text, study_tokens, tune_recipe, train, train_text, train_tokens]


@pytest.mark.parametrize("run", RUNS)
def test_what_another_process_works_in_is_refused_before_anything_is_done(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    others = {name: None for name in inspect.signature(run).parameters if name not in ("out", "options")}
    with holding(folder) as other:
        with pytest.raises(ArgumentError, match=f"in use by process {other.pid} "):
            run(**others, out=folder)
        assert [own.name for own in folder.iterdir()] == [".lock"]


def test_a_benchmark_has_its_folder_for_itself(tmp_path: Path) -> None:
    with holding(tmp_path) as other, pytest.raises(ArgumentError, match=f"in use by process {other.pid} "):
        run_bench(Wanted(model="tests.bench.models:text"), Settings(), tmp_path)
    assert [own.name for own in tmp_path.iterdir()] == [".lock"]


def test_a_search_has_its_file_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    with held(path, 0, "holding"), pytest.raises(ArgumentError, match=f"in use by process {os.getpid()} .*, holding"):
        tune(nn.Linear(1, 1), print, out=path)
    assert list(tmp_path.iterdir()) == []


SAVER = """
import sys
from tests.around import X, optimize, transformer
from marche_fx.passes.lower.conditions import Conditions, settings
from marche_fx.passes.lower.kept import Stored
from marche_fx.saving import captures
from marche_fx.saving.kernels import Kernels
import marche_fx, torch
path, name = sys.argv[1:]
optimized = optimize(transformer())
with torch.no_grad():
    optimized(X)
conditions = Conditions({}, {}, "True", {}, settings("cpu"), "cpu")
captures.kernels_of = lambda _: Kernels((Stored(name, conditions, name.encode() * 100_000),), {})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    marche_fx.save_captures(optimized, path)
"""


def test_two_processes_that_save_one_file_leave_the_files_of_one(tmp_path: Path) -> None:
    path = tmp_path / "steps"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAVER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in ("first", "second")
    ]
    for own in processes:
        assert own.stdout is not None
        assert own.stdout.readline() == "ready\n"
    for own in processes:
        assert own.stdin is not None
        own.stdin.write("\n")
        own.stdin.flush()
    for own in processes:
        own.communicate()
    assert [own.returncode for own in processes] == [0, 0]
    content, _ = read_container(path, HEADING)
    (kernels,) = read_kernels(path, content["kernels"], trust=True).modules
    assert kernels.data == kernels.key.encode() * 100_000
    assert sorted(own.name for own in tmp_path.iterdir()) == ["steps", "steps.kernels"]


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
