"""`sample` in one process: what is in the folder afterwards, and what is refused before."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError, SamplingError, SelectiveRefresh, StorageError
from marche_fx.sampling import Moments, Share
from marche_fx.sampling.bundled import MarLoop
from marche_fx.sampling.identity import identity_of
from marche_fx.sampling.labels import Labels
from marche_fx.saving.locks import held_folder
from tests.evaluate.tiny import silent, tiny_garments, written
from tests.sampling.tiny import BATCH, COUNT, TOLD, Flat, files, flat, garments, means, sampled


def shown(out: Path) -> Tensor:
    """Images ``[M, H, W]`` of PNG files, in the order of their names."""
    return torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in sorted((out / "images").iterdir())]))


def test_every_image_shows_its_own_label(tmp_path: Path) -> None:
    found = marche_fx.sample(Flat(), flat, 17, tmp_path, batch=5, labels="balanced", console=silent())
    assert (found.count, found.made, found.frechet) == (17, (17,), None)
    names = [path.name for path in sorted((tmp_path / "images").iterdir())]
    assert names == [f"{number:06d}.png" for number in range(17)]
    expected = ((torch.arange(17) % 7 / 7 + 1) * 127.5).round()
    assert torch.equal(shown(tmp_path)[:, 0, 0].float(), expected)


def test_fewer_images_are_the_first_of_more(tmp_path: Path) -> None:
    """The last share is computed as a whole."""
    sampled(tmp_path / "few", count=COUNT - 2)
    sampled(tmp_path / "more")
    few, more = (torch.from_numpy(shown(tmp_path / name).numpy()) for name in ("few", "more"))
    assert torch.equal(few, more[: COUNT - 2])


def test_images_of_other_batches_differ_by_rounding_alone(tmp_path: Path) -> None:
    """The slow oracle: one image at a time."""
    sampled(tmp_path / "run")
    sampled(tmp_path / "oracle", batch=1)
    found, expected = shown(tmp_path / "run").int(), shown(tmp_path / "oracle").int()
    assert (found - expected).abs().max() <= 1
    assert len({own.numpy().tobytes() for own in expected}) == COUNT, "no two images are alike"


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    sampled(tmp_path)
    expected, loop = files(tmp_path), MarLoop(garments(), TOLD)
    for index in (1, 3):
        (tmp_path / "shares" / f"{index:06d}.json").unlink()
    (tmp_path / "images" / "000000.png").write_bytes(b"damaged")
    asked: list[range] = []

    def generate(model: Any, share: Share) -> Tensor:
        asked.append(share.numbers)
        return loop(model, share)

    # The loop is told of by its name and code, so the one that looks on is another run's.
    with pytest.raises(ArgumentError, match="generate was"):
        sampled(tmp_path, generate=generate)
    with pytest.warns(UserWarning, match="missing or damaged"):
        found = sampled(tmp_path)
    assert found.made == (BATCH + BATCH + 1,)
    assert files(tmp_path) == expected
    assert sampled(tmp_path).made == (0,)


def test_what_a_transformed_model_learnt_before_changes_no_bit(tmp_path: Path) -> None:
    """Its first calls are captured, and its head reuses from the second denoising on."""

    torch.manual_seed(0)
    mar = tiny_garments(num_sampling_steps=10).eval()
    # A head that was not trained answers nothing, whatever it reuses.
    for weight in mar.diffloss.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    # As numbers, of which pictures would hide the last bits.
    options: dict[str, Any] = {"raw": True, "format": "npz", "features": None}

    def run() -> dict[str, bytes]:
        optimized = marche_fx.transform(mar, refresh="exact", reuse="balanced", compile=False)
        sampled(tmp_path, optimized, generate=MarLoop(mar, {**TOLD, "steps": 2}), **options)
        return files(tmp_path)

    expected = run()
    # The first that the second run makes, and the third of the first run.
    (tmp_path / "shares" / "000002.json").unlink()
    (tmp_path / "images" / "000002.npz").unlink()
    assert run() == expected


def test_statistics_are_those_of_the_images_as_they_are_kept(tmp_path: Path) -> None:
    reference = torch.zeros(4), torch.eye(4)
    found = sampled(tmp_path, reference=reference)
    pixels = shown(tmp_path)[:, None].float() / 127.5 - 1
    expected = Moments.of(means(pixels))
    assert found.moments is not None
    torch.testing.assert_close(found.moments.covariance, expected.covariance, atol=1e-6, rtol=0.0)
    assert found.frechet == pytest.approx(expected.frechet_distance(*reference), abs=1e-5)
    again = sampled(tmp_path, reference=reference)
    assert again.frechet == found.frechet, "put together in one order"
    assert json.loads((tmp_path / "summary.json").read_text())["frechet"] == found.frechet


@pytest.mark.parametrize("format", ["png", "npz", "safetensors"])
def test_one_file_of_all_is_as_adm_reads_it(tmp_path: Path, format: str) -> None:
    found = sampled(tmp_path, format=format, adm=True)
    sampled(tmp_path / "png", format="png")
    assert found.adm == tmp_path / f"samples_{COUNT}x28x28x3.npz"
    arrays = np.load(found.adm)
    assert arrays["arr_0"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["arr_0"], np.repeat(shown(tmp_path / "png").numpy()[..., None], 3, -1))
    np.testing.assert_array_equal(arrays["arr_1"], np.arange(COUNT) % 10)


def test_a_share_in_one_file_says_what_is_in_it(tmp_path: Path) -> None:
    sampled(tmp_path, format="safetensors")
    found = load_file(tmp_path / "images" / "000003.safetensors")
    assert {name: own.tolist() for name, own in found.items() if name != "images"} == {"labels": [9], "numbers": [9]}
    assert found["images"].shape == (1, 28, 28, 1)


def test_what_is_no_picture_is_kept_as_it_is(tmp_path: Path) -> None:
    def generate(model: Any, share: Share) -> Tensor:
        return torch.tensor([[number, -number] for number in share.numbers])

    marche_fx.sample(Flat(), generate, 5, tmp_path, batch=4, format="npz", raw=True, console=silent())
    rows = np.concatenate([np.load(path)["images"] for path in sorted((tmp_path / "images").iterdir())])
    assert rows.tolist() == [[number, -number] for number in range(5)]


def test_the_manifest_says_what_images_come_from(tmp_path: Path) -> None:
    sampled(tmp_path, settings={"steps": 3})
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert {name: found[name] for name in ("count", "batch", "seed", "settings")} == {
        "count": COUNT, "batch": BATCH, "seed": 0, "settings": {"steps": 3},
    }  # fmt: skip
    assert set(found["versions"]) == {"marche_fx", "torch", "Python"}


def other_weights() -> dict[str, Any]:
    model = garments()
    model.mask_token.data += 1
    return {"model": model}


OTHERS: dict[str, Callable[[], dict[str, Any]]] = {
    "count": lambda: {"count": 9},
    "batch": lambda: {"batch": 2},
    "seed": lambda: {"seed": 1},
    "format": lambda: {"format": "npz"},
    "labels": lambda: {"labels": [0] * COUNT},
    "features": lambda: {"features": None},
    "weights": other_weights,
    "settings": lambda: {"settings": {"steps": 4}},
    "transformed": lambda: {"model": marche_fx.transform(garments(), compile=False)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_folder_of_another_run_is_refused(tmp_path: Path, name: str) -> None:
    sampled(tmp_path)
    with pytest.raises(ArgumentError, match=rf"another run: .*{name} was"):
        sampled(tmp_path, **OTHERS[name]())


def test_a_policy_with_other_numbers_is_another_run() -> None:
    def told(fraction: float) -> object:
        optimized = marche_fx.transform(garments(), refresh=SelectiveRefresh(fraction), compile=False)
        return identity_of(optimized, flat, {})

    assert told(0.1) == told(0.1)
    assert told(0.1) != told(0.2)


def test_a_loop_of_other_code_or_numbers_is_another_run() -> None:
    def loop(steps: int, model: nn.Module) -> Any:
        return lambda given, share: given(share.labels) * steps + len(list(model.parameters()))

    model = garments()
    told = [identity_of(model, own, {}) for own in (loop(3, model), loop(3, garments()), loop(4, model), flat)]
    assert told[0] == told[1] != told[2] != told[3]
    assert identity_of(model, MarLoop(garments(), TOLD), {}) == identity_of(model, MarLoop(garments(), TOLD), {})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"count": 0}, "count must be"),
    ({"count": -3}, "count must be"),
    ({"count": 2.5}, "count must be"),
    ({"count": True}, "count must be"),
    ({"batch": 0}, "batch must be"),
    ({"seed": -1}, "seed must be"),
    ({"format": "gif"}, "format must be one of"),
    ({"raw": True}, "keeps pictures alone"),
    ({"raw": True, "format": "npz", "adm": True}, "leave out one"),
    ({"labels": [1, 2]}, "a label for each"),
    ({"labels": [10] * COUNT}, "of which there are 10"),
    ({"generate": None}, "generate must be a function"),
    ({"features": 3}, "features must be a function"),
    ({"features": None, "reference": (torch.zeros(4), torch.eye(4))}, "pass features="),
    ({"count": 1}, "no covariance"),
    ({"model": "mar"}, "takes a torch.nn.Module, got str"),
    ({"model": garments().train()}, "training mode"),
    ({"settings": {"steps": object()}}, "what JSON can write"),
]


@pytest.mark.parametrize(("options", "told"), REFUSED)
def test_a_call_that_cannot_be_done_leaves_nothing_behind(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        sampled(tmp_path / "new", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("generate", "told"),
    [
        (lambda model, share: torch.zeros(BATCH + 1, 1, 4, 4), f"asked for {BATCH} images"),
        (lambda model, share: torch.zeros(BATCH, 7, 4, 4), "Decode latents"),
        (lambda model, share: None, "got NoneType"),
    ],
)
def test_a_loop_that_returns_something_else_leaves_no_image(tmp_path: Path, generate: Any, told: str) -> None:
    with pytest.raises(SamplingError, match=told):
        sampled(tmp_path, generate=generate)
    assert not files(tmp_path)
    assert not list((tmp_path / "shares").iterdir())


def test_features_of_another_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match=rf"must return \[{BATCH}, D\]"):
        sampled(tmp_path, features=lambda images: images.mean((1, 2, 3)))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system writes no file beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_by_name_and_leaves_whole_shares_alone(tmp_path: Path) -> None:
    sampled(tmp_path, format="npz")
    expected = files(tmp_path)
    (tmp_path / "shares" / "000002.json").unlink()
    (tmp_path / "images" / "000002.npz").unlink()
    with largest_file(1000), pytest.raises(StorageError, match=r"000002.npz cannot be written: File too large"):
        sampled(tmp_path, format="npz")
    assert set(expected) - set(files(tmp_path)) == {"images/000002.npz"}, "nothing half-written"
    sampled(tmp_path, format="npz")
    assert files(tmp_path) == expected


def test_a_run_beside_another_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    sampled(tmp_path)
    partial = tmp_path / "images" / "b.1-2.partial"
    partial.touch()
    before = files(tmp_path)
    with held_folder(tmp_path, "sampling"), pytest.raises(ArgumentError, match="in use by"):
        sampled(tmp_path)
    assert files(tmp_path) == before
    sampled(tmp_path)
    assert not partial.exists()


def test_progress_tells_of_images_a_second_and_the_time_left(tmp_path: Path) -> None:
    console = silent()
    sampled(tmp_path, console=console)
    assert f"{COUNT} of {COUNT} images," in written(console)
    assert "images/s, 0:00:00 left" in written(console)


def test_a_share_is_always_computed_as_a_whole(tmp_path: Path) -> None:
    """Of other sizes arithmetic rounds otherwise."""
    asked: list[range] = []

    def generate(model: Any, share: Share) -> Tensor:
        asked.append(share.numbers)
        return flat(model, share)

    marche_fx.sample(Flat(), generate, 7, tmp_path, batch=5, labels="balanced", console=silent())
    assert asked == [range(5), range(5, 10)]
    assert len(shown(tmp_path)) == 7


def test_labels_may_be_none(tmp_path: Path) -> None:
    labels: Labels = None
    seen: list[Any] = []

    def generate(model: Any, share: Share) -> Tensor:
        seen.append(share.labels)
        return share.rand(1, 2, 2)

    marche_fx.sample(Flat(), generate, 3, tmp_path, batch=2, labels=labels, console=silent())
    assert seen == [None, None]
