"""What writes files says which one it could not write and what to do, and leaves what was there before."""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import marche_fx
from marche_fx import MarcheError, StorageError
from marche_fx.bench import Bench, save_bench
from marche_fx.evaluate.folder import Folder
from marche_fx.evaluate.study.lines import Line, Lines
from marche_fx.models import save_weights
from marche_fx.models.demo import save_picture
from marche_fx.models.training_state import save as save_state
from marche_fx.saving.files import replacing
from marche_fx.stopping import AGAIN, StoppedError, run_command
from marche_fx.tuning.notebook import Notebook, numbers
from marche_fx.tuning.tune import Store, Trial
from tests.around import EAGER, X, optimize, transformer

FULL = marche_fx.FullRefresh()
LONG = marche_fx.StalenessRefresh(tuple([0.5] * 2000))
ROOT = Path(marche_fx.__file__).parents[1]

SHORTLY = 5.0
"""Seconds that nothing takes which is told to stop."""

Write = Callable[[Path], Any]


@pytest.fixture(scope="module")
def optimized() -> nn.Module:
    found = optimize(transformer(), EAGER)
    with torch.no_grad(), marche_fx.decoding(found):
        found(X)
    return found


def line(number: int) -> Line:
    return Line("loop", "a" * 3000, number, "policy", [[0]], [0.0], 1.0, 1.0, 1.0, 0.0, "run")


def write_state(path: Path) -> None:
    model = nn.Linear(30, 30)
    save_state(path.parent, model, model, torch.optim.SGD(model.parameters()), {}, 1)


WRITERS: dict[str, tuple[str, Write]] = {
    "a policy": ("policy.json", lambda path: marche_fx.save_policy(LONG, path)),
    "a denoising": ("denoising.json", lambda path: marche_fx.save_denoising(marche_fx.Denoising(), path)),
    "a head's reuse": ("reuse.json", lambda path: marche_fx.save_head_reuse(marche_fx.HeadReuse(), path)),
    "a recipe": ("recipe.json", lambda path: marche_fx.save_recipe(marche_fx.Recipe(refresh=LONG), path)),
    "a tuned policy": (
        "tuned.json",
        lambda path: marche_fx.Tuned(LONG, 0.1, 0.0, 1.0, (0,), (1,), (), ("a",), 0.1).save(path),
    ),
    "trials": ("trials.json", lambda path: Store(path, {}).add(Trial(LONG, False, 0.1, 0.5))),
    "measurements": (
        "search.json",
        lambda path: Notebook(path.parent, {}).measured("stage", os.urandom(4).hex(), lambda: numbers(seconds=1.0)),
    ),
    "a benchmark": ("bench.json", lambda path: save_bench(Bench({"name": "a" * 999}, {}, (), ()), path.parent)),
    "an evaluation": ("settings.json", lambda path: Folder(path.parent, {"a": "b" * 999})),
    "weights": ("weights.safetensors", lambda path: save_weights(nn.Linear(30, 30), path)),
    "a training": ("state.pt", write_state),
    "a picture": ("demo.png", lambda path: save_picture(path, [], 1)),
}

REPORTS = ("report.txt", "report.html", "report.json", "report.dot")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of the process may have more than some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system refuses the file when it is put in its place; root may write to every folder."""

    def refuse(source: Any, target: Any, **_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        yield


def contents(folder: Path) -> dict[str, bytes]:
    return {str(own.relative_to(folder)): own.read_bytes() for own in folder.rglob("*") if own.is_file()}


def refused(write: Write, path: Path, word: str) -> None:
    before = contents(path.parent)
    with pytest.raises(MarcheError, match=word) as raised:
        write(path)
    assert str(path.parent) in str(raised.value)
    assert contents(path.parent) == before


@pytest.mark.parametrize("kind", [own for own in WRITERS if own not in ("an evaluation", "a picture", "a benchmark")])
def test_on_a_full_disk_the_older_file_stays(kind: str, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    write(tmp_path / name)
    with full_disk():
        refused(write, tmp_path / name, "cannot be written|unexpected pos|too large")
    write(tmp_path / name)


@pytest.mark.parametrize("kind", [own for own in WRITERS if own not in ("an evaluation", "a picture")])
def test_where_nothing_may_be_written_the_older_file_stays(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write = WRITERS[kind]
    if kind != "a benchmark":
        write(tmp_path / name)
    with read_only(monkeypatch):
        refused(write, tmp_path / name, "cannot be written|Read-only")


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_written_whole_or_not_at_all(name: str, optimized: nn.Module, tmp_path: Path) -> None:
    report = marche_fx.report(optimized)
    report.save(tmp_path / name)
    with full_disk():
        refused(report.save, tmp_path / name, "Free some space")
    with full_disk(), pytest.raises(StorageError, match=r"graphs\.json cannot be written"):
        report.save_model_explorer(tmp_path)
    assert not [own for own in tmp_path.iterdir() if own.name != name]


def test_captures_are_written_whole_or_not_at_all(optimized: nn.Module, tmp_path: Path) -> None:
    marche_fx.save_captures(optimized, tmp_path / "captured")
    with full_disk():
        refused(lambda path: marche_fx.save_captures(optimized, path), tmp_path / "captured", "cannot be written")


def test_a_folder_that_is_removed_meanwhile_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lines, store = Lines(folder / "lines.json"), None
    folder.mkdir()
    store = Store(folder / "trials.json", {})
    notebook = Notebook(folder, {})
    for own in folder.iterdir():
        own.unlink()
    folder.rmdir()
    for write in (
        lambda: store.add(Trial(FULL, False, 0.1, 0.5)),
        lambda: notebook.measured("stage", "one", lambda: numbers(seconds=1.0)),
        lambda: lines.add(line(0)),
    ):
        with pytest.raises(StorageError, match=f"Make the folder {folder}"):
            write()
    assert not folder.exists()


def test_a_study_goes_on_behind_a_line_that_the_disk_had_no_room_for(tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    Lines(path).add(line(0))
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, before[1]))
    try:
        with pytest.raises(StorageError, match=r"lines\.json cannot be written.*Free some space"):
            Lines(path).add(line(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = Lines(path)
    assert [own.batch for own in lines.known.values()] == [0]
    lines.add(line(1))
    assert len(Lines(path).known) == 2


CLOCKS = ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today")


def test_no_clock_that_can_be_set_back_decides_anything() -> None:
    for path in (ROOT / "marche_fx").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert not ast.unparse(node).endswith(CLOCKS), path
                assert node.attr not in ("st_mtime", "st_mtime_ns", "getmtime"), path
            if isinstance(node, ast.ImportFrom):
                assert node.module != "time", path


# ------------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_command_that_is_told_to_stop_says_so_and_leaves_no_half_file(
    number: signal.Signals, code: int, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results"
    path.write_text("old")
    handlers = [signal.getsignal(own) for own in (signal.SIGINT, signal.SIGTERM)]

    def command() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            os.kill(os.getpid(), number)
            partial.write_text("new")

    with pytest.raises(SystemExit) as ended:
        run_command(command)
    assert ended.value.code == code
    told = capsys.readouterr().err
    assert told.startswith(f"stopped by {word}: ")
    assert len(told.splitlines()) == 1
    assert contents(tmp_path) == {"results": b"old"}
    assert [signal.getsignal(own) for own in (signal.SIGINT, signal.SIGTERM)] == handlers


class KilledInTheEnd:
    """Its process is told to stop while this is destroyed, from where Python lets no exception out."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_that_comes_in_a_destructor_stops_too(capsys: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()
    hook = sys.unraisablehook

    def command() -> None:
        own = KilledInTheEnd()
        del own
        ended.wait(10)
        ended.set()

    with pytest.raises(SystemExit) as stopped:
        run_command(command)
    assert stopped.value.code == 143
    assert not ended.is_set(), "it went on as if nobody had told it"
    assert capsys.readouterr().err.startswith("stopped by SIGTERM: ")
    assert sys.unraisablehook is hook


def as_another_error() -> None:
    try:
        time.sleep(SHORTLY)
    except BaseException:
        raise TypeError("argument 'stride' failed to unpack") from None


def as_another_error_that_is_caught() -> None:
    with contextlib.suppress(TypeError):
        as_another_error()
    time.sleep(SHORTLY)
    raise AssertionError("it went on as if nobody had told it")


def not_at_all() -> None:
    with contextlib.suppress(BaseException):
        time.sleep(SHORTLY)
    time.sleep(SHORTLY)
    raise AssertionError("it went on as if nobody had told it")


@pytest.mark.parametrize("raised", [as_another_error, as_another_error_that_is_caught, not_at_all])
def test_a_stop_that_others_lose_stops_too(raised: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        telling = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        telling.start()
        raised()

    with pytest.raises(SystemExit) as stopped:
        run_command(command)
    assert stopped.value.code == 143
    assert capsys.readouterr().err.startswith("stopped by SIGTERM: ")


def test_what_cleans_up_behind_a_stop_is_not_broken_off() -> None:
    cleaned = []

    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            with contextlib.suppress(KeyError):
                raise KeyError("another that is dealt with on the way")
            time.sleep(4 * AGAIN)
            os.kill(os.getpid(), signal.SIGINT)
            cleaned.append(True)

    with pytest.raises(SystemExit) as stopped:
        run_command(command)
    assert stopped.value.code == 143
    assert cleaned == [True]


def test_what_catches_every_exception_does_not_catch_a_stop() -> None:
    assert not issubclass(StoppedError, Exception)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (marche_fx.ArgumentError("steps must be"), "ArgumentError: steps must be\n"),
        (
            OSError(errno.ENOSPC, "No space left", "/full/file"),
            "OSError: /full/file cannot be written: No space left. Fr",
        ),
    ],
)
def test_what_a_user_can_mend_is_a_line(error: Exception, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(command)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(told)


def test_what_nobody_expects_keeps_its_traceback() -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(command)
