from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marche_fx.errors import DatasetError
from marche_fx.models.emoji import pictures
from marche_fx.models.emoji.dataset import load_emoji
from marche_fx.models.emoji.names import Kind, is_held_out, sequence_of
from marche_fx.models.emoji.pictures import build, read_picture

CATALOGUE: dict[tuple[int, ...], Kind] = {
    sequence_of("1f600"): Kind("Smileys & Emotion", "face-smiling"),
    sequence_of("1f9d1-1f680"): Kind("People & Body", "person-role"),
    sequence_of("1f3fb"): Kind("Component", "skin-tone"),
    **{(point,): Kind("Objects", "tool") for point in range(0x1F500, 0x1F540)},
}


def draw(path: Path, seed: int, side: int = 64) -> np.ndarray:
    """A random picture, half of it transparent."""
    path.parent.mkdir(exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[: side // 2, :, 3] = 0
    Image.fromarray(values, "RGBA").save(path, lossless=True)
    return np.where(values[..., 3:] == 0, 255, values[..., :3])


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    seen = draw(tmp_path / "a" / "1f600.png", 0)
    np.testing.assert_array_equal(read_picture(tmp_path / "a" / "1f600.png"), seen)


def test_pictures_of_any_size_become_64_pixels(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1f600.webp", 0, side=200)
    picture = read_picture(tmp_path / "a" / "1f600.webp")
    assert picture.shape == (64, 64, 3)
    assert (picture[:28] == 255).all()
    assert not (picture[36:] == 255).all()


def test_the_pictures_come_back_pixel_by_pixel_with_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SHEET", 7)  # Several sheets, the last one part full.
    drawn = {point: draw(tmp_path / "a" / f"{point:x}.png", point) for point in range(0x1F500, 0x1F540)}
    drawn[0x1F600] = draw(tmp_path / "b" / "1f600.png", 5)
    assert build(CATALOGUE, [tmp_path / "a", tmp_path / "b"], tmp_path / "emoji.safetensors") == 65
    emoji = load_emoji(tmp_path / "emoji.safetensors")
    assert emoji.groups == ["Objects", "Smileys & Emotion"]
    assert emoji.subgroups == ["tool", "face-smiling"]
    for part, held_out in ((emoji.training, False), (emoji.held_out, True)):
        expected = [drawn[point].transpose(2, 0, 1) for point in drawn if is_held_out((point,)) == held_out]
        np.testing.assert_array_equal(part.images.numpy(), np.stack(expected))
        groups = [int(point == 0x1F600) for point in drawn if is_held_out((point,)) == held_out]
        assert emoji.in_groups(part).labels.tolist() == groups
    assert len(emoji.held_out) > 0


def test_repeats_bare_tones_and_unknown_emoji_are_left_out(tmp_path: Path) -> None:
    for seed, name in enumerate(["1f600", "1f3fb", "1f999", "1f9d1-1f3fb-1f680", "1f9d1-1f3fb-200d-1f680-1f3fc"]):
        draw(tmp_path / "a" / f"{name}.png", seed)
    draw(tmp_path / "b" / "1f600.png", 0)
    draw(tmp_path / "b" / "1f501.png", 9)
    assert build(CATALOGUE, [tmp_path / "a", tmp_path / "b"], tmp_path / "emoji.safetensors") == 3


def test_folders_without_pictures_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no \.png or \.webp"):
        build(CATALOGUE, [tmp_path], tmp_path / "emoji.safetensors")
    (tmp_path / "1f600.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"1f600\.png cannot be read as a picture"):
        build(CATALOGUE, [tmp_path], tmp_path / "emoji.safetensors")
    (tmp_path / "1f600.png").rename(tmp_path / "1f999.png")
    with pytest.raises(DatasetError, match="none of the pictures"):
        build(CATALOGUE, [tmp_path], tmp_path / "emoji.safetensors")


@pytest.mark.parametrize("length", [0, 50, 4000])
def test_a_cut_file_is_refused(tmp_path: Path, length: int) -> None:
    draw(tmp_path / "a" / "1f600.png", 0)
    path = tmp_path / "emoji.safetensors"
    build(CATALOGUE, [tmp_path / "a"], path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DatasetError, match="missing, damaged"):
        load_emoji(path)


def test_a_file_with_other_content_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, tmp_path / "emoji.safetensors")
    with pytest.raises(DatasetError, match="not what python -m"):
        load_emoji(tmp_path / "emoji.safetensors")
