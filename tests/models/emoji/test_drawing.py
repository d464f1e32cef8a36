from pathlib import Path

import matplotlib.image
import pytest
import torch

from marche_fx.errors import DatasetError
from marche_fx.models.dataset import LabelledImages
from marche_fx.models.emoji.drawing import generate, labelled_as, save_pictures, save_reconstructions

from .tiny import tiny_autoencoder, tiny_mar


def test_pictures_stand_in_rows_filled_up_with_white(tmp_path: Path) -> None:
    images = torch.linspace(-1, 0.6, 5)[:, None, None, None].expand(5, 3, 4, 4)
    save_pictures(images, tmp_path / "grid.png", columns=3)
    grid = matplotlib.image.imread(tmp_path / "grid.png")[..., :3]
    assert grid.shape == (8, 12, 3)
    assert grid[::4, ::4, 0].flatten().tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=0.01)


def test_reconstructions_stand_below_their_originals(tmp_path: Path) -> None:
    images = 10 * torch.arange(16, dtype=torch.uint8)[:, None, None, None].expand(16, 3, 2, 2)
    save_reconstructions(torch.ones(16, 3, 2, 2), images, tmp_path / "grid.png")
    grid = matplotlib.image.imread(tmp_path / "grid.png")[::2, ::2, 0]
    assert grid.shape == (4, 14)
    assert (25.5 * grid[0]).tolist() == pytest.approx(list(range(14)), abs=0.2)
    assert (25.5 * grid[2, :2]).tolist() == pytest.approx([14, 15], abs=0.2)
    assert (grid[1::2] == 1).all()


def test_pictures_are_the_same_for_the_same_seed() -> None:
    torch.manual_seed(0)
    mar, autoencoder = tiny_mar().eval(), tiny_autoencoder().eval()
    for parameter in autoencoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def drawn(seed: int) -> torch.Tensor:
        labels = torch.tensor([0, 1, 2])
        return generate(mar, autoencoder, labels, steps=2, cfg=1.5, temperature=1.0, batch=2, seed=seed)

    assert drawn(0).shape == (3, 3, 64, 64)
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_a_picture_is_drawn_at_random_for_each_label() -> None:
    own = torch.arange(60) % 3
    numbered = LabelledImages(torch.arange(60, dtype=torch.uint8)[:, None, None, None], own)
    labels = torch.tensor([2, 0, 0, 2, 1] * 20)
    drawn = labelled_as(numbered, labels)
    assert torch.equal(drawn.labels, labels)
    assert torch.equal(own[drawn.images.flatten().long()], labels)
    assert len(drawn.images.unique()) > 40
    with pytest.raises(DatasetError, match=r"labelled \[3, 5\]"):
        labelled_as(numbered, torch.tensor([1, 5, 3, 5]))
