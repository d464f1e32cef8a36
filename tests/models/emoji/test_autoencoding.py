from dataclasses import replace
from pathlib import Path

import pytest
import torch

from marche_fx.models.dataset import to_pixels
from marche_fx.models.emoji.autoencoding import (
    RECIPE,
    AutoencoderLoss,
    edges,
    encode_all,
    encode_both_ways,
    reconstruction,
    signal_to_noise,
    train_autoencoder,
)

from .tiny import EMOJI, tiny_autoencoder

QUICK = replace(RECIPE, epochs=40, batch=12, warmup=5, learning_rate=1e-2)
CPU = torch.device("cpu")


def test_training_fits_its_pictures_and_measures_their_latents(tmp_path: Path) -> None:
    autoencoder = train_autoencoder(
        EMOJI, tmp_path, CPU, minutes=float("inf"), recipe=QUICK, autoencoder=tiny_autoencoder, look_every=1
    )
    images = EMOJI.held_out.images
    flat = to_pixels(images).mean((0, 2, 3), keepdim=True).expand(len(images), 3, 64, 64)
    assert signal_to_noise(reconstruction(autoencoder, images), images) > signal_to_noise(flat, images) + 6
    latents = encode_all(autoencoder, EMOJI.training.images)
    assert latents.mean((0, 2, 3)).abs().max() < 0.02
    assert not autoencoder.training


def test_a_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    def trained(folder: str, epochs: float) -> torch.Tensor:
        recipe = replace(QUICK, epochs=epochs)
        found = train_autoencoder(
            EMOJI, tmp_path / folder, CPU, minutes=float("inf"), recipe=recipe, autoencoder=tiny_autoencoder
        )
        return next(found.parameters())

    once = trained("one", 2)
    assert torch.equal(trained("one", 2), once)  # Nothing is left to do.
    assert not torch.equal(trained("one", 3), once)


def test_the_loss_asks_for_pixels_edges_and_plain_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    loss, images = AutoencoderLoss(tiny_autoencoder()), to_pixels(EMOJI.training.images)

    def of() -> float:
        torch.manual_seed(1)
        return float(loss(images, EMOJI.training.labels))

    with torch.no_grad():
        whole = of()
        monkeypatch.setattr("marche_fx.models.emoji.autoencoding.EDGES", 0.0)
        without_edges = of()
        monkeypatch.setattr("marche_fx.models.emoji.autoencoding.RATE", 0.0)
        pixels = of()
    assert whole > without_edges > pixels > 0.5


def test_the_error_of_edges_is_that_of_differences_of_neighbours() -> None:
    images = torch.tensor([[0.0, 1.0], [0.0, 3.0]])[None, None]
    assert edges(images).item() == pytest.approx(((1 + 3) / 2 + (0 + 2) / 2) / 2)
    assert edges(images + 5).item() == edges(images).item()


def test_pictures_are_seen_both_ways_but_flags_only_as_they_are() -> None:
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder().eval()
    pairs = encode_both_ways(autoencoder, EMOJI, EMOJI.training)
    assert pairs.images.shape == (24, 2, 8, 16, 16)
    torch.testing.assert_close(pairs.images[:, 0], encode_all(autoencoder, EMOJI.training.images))
    flags = EMOJI.training.labels == 0
    assert torch.equal(pairs.images[flags, 0], pairs.images[flags, 1])
    turned = encode_all(autoencoder, EMOJI.training.images.flip(-1))
    torch.testing.assert_close(pairs.images[~flags, 1], turned[~flags])
    assert not torch.allclose(pairs.images[~flags, 1], pairs.images[~flags, 0])


def test_signal_to_noise_is_that_of_the_range_of_pixels() -> None:
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert signal_to_noise(torch.full((1, 3, 2, 2), 0.8), images) == pytest.approx(20)
