from pathlib import Path

import pytest
import torch

from marche_fx.errors import DatasetError
from marche_fx.models.dataset import to_pixels
from marche_fx.models.fashion import Fashion, load_fashion

from .tiny import tiny_images, write_fashion, write_idx

GARMENTS = tiny_images(count=6, size=28, classes=10)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_split_is_read_as_it_was_written(tmp_path: Path, zipped: bool) -> None:
    write_fashion(tmp_path, "t10k", GARMENTS, zipped)
    found = load_fashion(tmp_path, "t10k")
    assert torch.equal(found.images, GARMENTS.images)
    assert torch.equal(found.labels, GARMENTS.labels)
    assert found.labels.dtype == torch.int64
    assert len(found) == 6


def test_pixels_span_minus_one_to_one() -> None:
    assert to_pixels(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz.*--data"):
        load_fashion(tmp_path)


@pytest.mark.parametrize("left", [0, 3, 10, 500])
def test_a_cut_file_is_refused(tmp_path: Path, left: int) -> None:
    write_fashion(tmp_path, "train", GARMENTS)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte is"):
        load_fashion(tmp_path)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, "train", GARMENTS)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\x01")
    with pytest.raises(DatasetError, match="7 bytes of values, 6 expected"):
        load_fashion(tmp_path)


@pytest.mark.parametrize("left", [0, 5, 100])
def test_a_cut_gzip_file_is_refused(tmp_path: Path, left: int) -> None:
    write_fashion(tmp_path, "train", GARMENTS, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte"):
        load_fashion(tmp_path)


def test_a_plain_file_named_gz_is_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, "train", GARMENTS)
    path = tmp_path / "train-images-idx3-ubyte"
    path.rename(path.with_name(f"{path.name}.gz"))
    with pytest.raises(DatasetError, match="cannot be read whole"):
        load_fashion(tmp_path)


def test_swapped_images_and_labels_are_refused(tmp_path: Path) -> None:
    garments = tiny_images(count=30, size=28)
    write_idx(tmp_path / "train-images-idx3-ubyte", garments.labels)
    write_idx(tmp_path / "train-labels-idx1-ubyte", garments.images[:, 0])
    with pytest.raises(DatasetError, match="swapped"):
        load_fashion(tmp_path)


def test_files_of_two_splits_are_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, "train", GARMENTS)
    write_idx(tmp_path / "train-labels-idx1-ubyte", GARMENTS.labels[:4])
    with pytest.raises(DatasetError, match="6 train images but 4 labels"):
        load_fashion(tmp_path)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, "train", tiny_images(count=6, size=8))
    with pytest.raises(DatasetError, match=r"\(8, 8\) pixels, expected \(28, 28\)"):
        load_fashion(tmp_path)


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, "train", Fashion(GARMENTS.images, GARMENTS.labels + 5))
    with pytest.raises(DatasetError, match=r"a train label is 1\d"):
        load_fashion(tmp_path)
