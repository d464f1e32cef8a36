"""Files that a stranger wrote: nothing in them runs, nothing is written elsewhere, one warning says what is wrong."""

from __future__ import annotations

import io
import os
import pickle
import random
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx import MarcheError
from marche_fx.saving.captures import HEADING
from marche_fx.saving.container import read_container, tensors_as_bytes, write_container
from marche_fx.saving.files import SEAL, write_sealed
from tests.around import Around, X, optimize, same, transformer
from tests.passes.capture.test_branches import ALL
from tests.saving.hostile import changed, mutated

CALLED: list[str] = []


@torch.library.custom_op("marche_fx_hostile::touch", mutates_args=())
def touch(x: Tensor) -> Tensor:
    CALLED.append("touched")
    return x.clone()


@touch.register_fake
def _(x: Tensor) -> Tensor:
    CALLED.append("tried")
    return torch.empty_like(x)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def branching(model: Any, x: Tensor, mask: Tensor) -> Tensor:
    result: Tensor = model.inner(x * mask[..., None] if (mask == 1).all() else x + 1)
    return result


def model_of(kind: str) -> tuple[Any, tuple[Tensor, ...]]:
    return (transformer(), (X,)) if kind == "plain" else (Around(branching), (X, ALL))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = {}
    for kind in ("plain", "branching"):
        model, args = model_of(kind)
        optimized = optimize(model)
        with torch.no_grad():
            optimized(*args)
        path = tmp_path_factory.mktemp("saved") / "steps"
        marche_fx.save_captures(optimized, path)
        found[kind] = path.read_bytes()
    return found


@pytest.fixture
def path(tmp_path: Path, written: dict[str, bytes]) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "steps").write_bytes(written["branching"])
    return folder / "steps"


@contextmanager
def refused(path: Path, reason: str) -> Iterator[None]:
    """What is inside warns once that the file is not used, within seconds, and leaves nothing behind."""
    before, begin = sorted(path.parent.parent.rglob("*")), time.process_time()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    assert [str(own.message) for own in told if own.category is UserWarning and reason in str(own.message)], [
        str(own.message) for own in told
    ]
    assert len(told) == 1
    assert sorted(path.parent.parent.rglob("*")) == before
    assert CALLED == []
    assert time.process_time() - begin < 20


def capture_of(values: Any) -> Any:
    return values["steps"]["forward"][0]["capture"]


def first_call(values: Any) -> Any:
    return next(own for own in capture_of(values)["graph"] if "call" in own)


def calls(operator: str, *args: Any) -> Callable[[Any], None]:
    """The first operator of a graph is another one."""

    def change(values: Any) -> None:
        node = first_call(values)
        node["call"], node["args"] = operator, [*args] if args else node["args"][:1]
        node.pop("kwargs", None)

    return change


def sets(*place: Any) -> Callable[[Any], None]:
    """Something else stands at a place in the capture."""

    def change(values: Any) -> None:
        *way, last, value = place
        holder = capture_of(values)
        for key in way:
            holder = holder[key]
        holder[last] = value

    return change


def renamed(name: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        first_call(values)["name"] = name

    return change


def valued(value: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        first_call(values)["value"] = value

    return change


def asks(name: str, *args: Any) -> Callable[[Any], None]:
    """The first question about arguments is another one."""

    def change(values: Any) -> None:
        capture_of(values)["branches"]["calls"][0] |= {"function": name, "args": {"tuple": [*args]}}

    return change


def contained(kind: Any, context: Any, *children: Any) -> Any:
    return {"kind": kind, "context": context, "children": [*children]}


HUGE = ["float32", "cpu", [2**62, 2**62], [2**62, 1]]

HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "an operator that there is not": (calls("aten.nothing.default"), "no operator of this process"),
    "an overload that there is not": (calls("aten.add.nothing"), "no operator of this process"),
    "a custom operator": (calls("marche_fx_hostile.touch.default"), "which is no operator of PyTorch; if you know"),
    "an operator that reads files": (calls("aten.from_file.default", "/etc/passwd"), "does more than compute"),
    "an operator that prints": (calls("aten._print.default", "hello"), "does more than compute"),
    "a part of operators that writes": (calls("prims.copy_to.default"), "does more than compute"),
    "an operator that writes": (calls("aten.add_.Tensor"), "does more than compute"),
    "a function of Python": (calls("os.system", "true"), "which is no operator"),
    "a power": (calls("operator.pow", 10, 10**9), "which is no operator"),
    "a product of texts": (calls("operator.mul", "a", 10**12), "on what is no number"),
    "an attribute of a namespace": (calls("aten.__class__.__init__"), "no operator of this process"),
    "a namespace of dunders": (calls("__class__.__mro__.x"), "which is no operator of PyTorch"),
    "code in a name": (renamed("x = __import__('os').system('true')"), "which no value can be called"),
    "code in an argument": (renamed("x, *_"), "which no value can be called"),
    "a keyword": (renamed("lambda"), "which no value can be called"),
    "a name of Python's": (renamed("print"), "which no value can be called"),
    "a name twice": (lambda v: first_call(v).update(name=capture_of(v)["graph"][0]["name"]), "it calls two values"),
    "no name": (renamed([]), "is not what was written"),
    "a line of code": (lambda values: first_call(values).update(line='a.py\n"; import os:1'), "of no file"),
    "a huge tensor": (valued(HUGE), "larger than any"),
    "a huge expanded tensor": (valued(["float32", "cpu", [2**62], [0]]), "larger than any"),
    "a huge number": (valued(["float32", "cpu", [2**70], [1]]), "larger than any"),
    "a negative size": (valued(["float32", "cpu", [-1, 2], [2, 1]]), "of a negative size"),
    "a type that there is not": (valued(["float32; import os", "cpu", [1], [1]]), "is not what was written"),
    "a device that there is not": (valued(["float32", "nowhere:0", [1], [1]]), "is not what was written"),
    "another value than there is": (valued(["float32", "cpu", [3], [1]]), "another value for what"),
    "a huge new tensor": (calls("aten.zeros.default", [2**40, 2**40]), "cannot be called on"),
    "a cycle": (lambda values: first_call(values).update(args=[{"node": "linear"}]), "before that is made"),
    "a weight by a way of its own": (sets("weights", {"p": "__class__.__init__"}), "is not what was written"),
    "a path for a weight": (
        lambda v: capture_of(v)["weights"].update(dict.fromkeys(capture_of(v)["weights"], "../x")),
        "which no model has",
    ),
    "results in an object that runs": (
        sets("results", contained(["subprocess", "Popen"], None, None)),
        "for a container",
    ),
    "results in a named tuple that is none": (
        sets("results", contained("namedtuple", ["subprocess", "Popen"], None)),
        "for a named tuple",
    ),
    "results in fields that are none": (
        sets("results", contained("fields", [["subprocess", "Popen"], {"tuple": ["args"]}], None)),
        "for a class of fields",
    ),
    "results in a dict that makes entries": (
        sets("results", contained("defaultdict", ["system", ["a"]], None)),
        "a defaultdict of",
    ),
    "a class of a module that is not loaded": (
        sets("results", contained(["antigravity", "fly"], None, None)),
        "which this process has not loaded",
    ),
    "an enumeration that is none": (
        sets("inputs", 0, {"value": {"enum": ["subprocess", "Popen", "wait"]}}),
        "no member of an enumeration",
    ),
    "a function as a question": (asks("os.system", "true"), "no function of PyTorch"),
    "a question that saves": (asks("torch.save", {"value": 0}, "/tmp/x"), "no function of PyTorch"),
    "a question that shares memory": (asks("torch.Tensor.share_memory_", {"value": 0}), "no function of PyTorch"),
    "a question that unpickles": (asks("torch.Tensor.__setstate__", {"value": 0}, []), "no function of PyTorch"),
    "a question of what is made later": (asks("torch.Tensor.all", {"value": 99}), "before that is made"),
    "a huge power of a size": (
        sets("symbols", "s0", {"assumed": {}, "range": [0, ["Pow", 9, 10**9]], "hint": 1}),
        "power",
    ),
    "too few results": (lambda values: capture_of(values)["graph"][-1].update(output=[]), "other results than it says"),
    "a constant that there is not": (
        lambda v: capture_of(v)["constants"].update({capture_of(v)["graph"][0]["name"]: {"tensor": "c9"}}),
        "a tensor that there is not",
    ),
    "no graph": (sets("graph", []), "is not what was written"),
    "an unknown kind of value": (lambda v: first_call(v).update(args=[{"exec": "1"}]), "of no known kind"),
    "two kinds of value": (lambda v: first_call(v).update(args=[{"tuple": [], "dict": []}]), "of no known kind"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_stranger_asks_for_is_not_done(path: Path, name: str) -> None:
    change, reason = HOSTILE[name]
    CALLED.clear()
    changed(path, change)
    with refused(path, reason):
        assert not marche_fx.load_captures(optimize(model_of("branching")[0]), path)


@torch.no_grad()
def test_an_operator_that_the_user_names_may_be_called_and_is_not_by_loading(path: Path) -> None:
    def change(values: Any) -> None:
        graph = capture_of(values)["graph"]
        node = {"name": "touched", "call": "marche_fx_hostile.touch.default", "args": [{"node": graph[-2]["name"]}]}
        graph.insert(-1, node | {"value": graph[-2]["value"]})

    model, args = model_of("branching")
    CALLED.clear()
    changed(path, change)
    optimized = optimize(model)
    assert marche_fx.load_captures(optimized, path, operators=["marche_fx_hostile::touch"])
    assert "touched" not in CALLED
    assert same(optimized(*args), model(*args))


def sealed(content: bytes) -> bytes:
    import hashlib

    return content + SEAL + hashlib.sha256(content).digest()


def bomb() -> bytes:
    """A zip archive of a hundred million zeros."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.pkl", bytes(100_000_000))
    return archive.getvalue()


def framed(text: bytes, rest: bytes = b"", length: int | None = None) -> bytes:
    count = len(text) if length is None else length
    return sealed(HEADING + count.to_bytes(8, "little") + text + rest)


FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "a pickle": (lambda path: pickle.dumps(Payload(path)), "not written by"),
    "a pickle behind the heading": (lambda path: sealed(HEADING + pickle.dumps(Payload(path))), "damaged"),
    "a pickle of the version before": (
        lambda path: sealed(b"marche_fx captured steps 6\n" + pickle.dumps(Payload(path))),
        "by another version of marche_fx.save_captures; save again",
    ),
    "a pickle as JSON": (lambda path: framed(pickle.dumps(Payload(path))), "no JSON"),
    "a pickle as tensors": (
        lambda path: framed(b'{"assigned":[],"made for":{}}', pickle.dumps(Payload(path))),
        "made for",
    ),
    "a checkpoint": (lambda path: torch_file(Payload(path)), "not written by"),
    "a bomb": (lambda path: bomb(), "not written by"),
    "deep nesting": (lambda path: framed(b"[" * 200_000 + b"]" * 200_000), "no JSON"),
    "a name twice": (lambda path: framed(b'{"steps":{},"steps":{}}'), "a name stands twice"),
    "no number": (lambda path: framed(b'{"steps":NaN}'), "NaN is no number"),
    "a length beyond the end": (lambda path: framed(b"{}", length=2**63), "damaged"),
    "no length": (lambda path: sealed(HEADING), "damaged"),
    "nothing": (lambda path: framed(b""), "damaged"),
    "a list": (lambda path: framed(b"[]"), "is not what was written"),
    "a text": (lambda path: framed(b'"steps"'), "is not what was written"),
    "no Unicode": (lambda path: framed(b'{"\xff":1}'), "no JSON"),
}


def torch_file(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_of_captures_is_not_used(path: Path, name: str) -> None:
    make, reason = FILES[name]
    CALLED.clear()
    path.write_bytes(make(path.with_name("executed")))
    with refused(path, reason):
        assert not marche_fx.load_captures(optimize(model_of("branching")[0]), path)


def test_tensors_that_are_none_are_not_used(path: Path) -> None:
    values, _ = read_container(path, HEADING)
    good = tensors_as_bytes({"c0": torch.ones(2)})
    header = b'{"c0":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}'
    for rest in (
        good[:-1],
        good + b"0",
        b"",
        b"\xff" * 8 + good[8:],
        len(header).to_bytes(8, "little") + header + bytes(8),
    ):
        write_container(path, HEADING, values, rest)
        with refused(path, "its tensors are damaged"):
            assert not marche_fx.load_captures(optimize(model_of("branching")[0]), path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_regular_file_is_not_waited_for(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with refused(path, "Not a regular file"):
        assert not marche_fx.load_captures(optimize(model_of("branching")[0]), path)


def test_a_file_of_weights_under_that_name_is_not_used(path: Path) -> None:
    write_sealed(path, tensors_as_bytes({"weight": torch.ones(2)}))
    with refused(path, "not written by"):
        assert not marche_fx.load_captures(optimize(model_of("branching")[0]), path)


OTHERS: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 2**40, 2**63, 1.5, "", "x", "aten.add.Tensor", "aten.full.default", "float64"),
    *([], {}, [1, 2], {"tuple": []}, {"node": "x"}, {"float": "nan"}, {"dtype": "float64"}, {"device": "meta"}),
)


@pytest.mark.parametrize("kind", ["plain", "branching"])
@torch.no_grad()
def test_a_file_with_anything_in_it_changed_is_refused_or_right_or_an_error_of_ours(
    tmp_path: Path, written: dict[str, bytes], kind: str
) -> None:
    """Whatever was changed: what is used is compared with the original before anybody gets it."""
    path, draws, refusals = tmp_path / "steps", random.Random(kind), 0
    path.write_bytes(written[kind])
    values, rest = read_container(path, HEADING)
    model, args = model_of(kind)
    expected = model(*args)
    for _ in range(40):
        write_container(path, HEADING, values | {"steps": mutated(values["steps"], draws, [*OTHERS])}, rest)
        optimized = optimize(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not marche_fx.load_captures(optimized, path):
                refusals += 1
                continue
            try:
                assert same(optimized(*args), expected)
            except MarcheError:
                continue
    assert refusals > 10
