import torch

from marche_fx.models.dataset import to_pixels
from marche_fx.models.emoji.autoencoder import LIMIT, Autoencoder

from .tiny import EMOJI, tiny_autoencoder


def woken() -> Autoencoder:
    """With random weights throughout: residuals start as nothing."""
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder()
    for parameter in autoencoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return autoencoder


def test_pictures_become_latents_of_a_quarter_of_their_side_and_pictures_again() -> None:
    autoencoder = Autoencoder()
    latents = autoencoder.encode(torch.zeros(2, 3, 64, 64))
    assert latents.shape == (2, 8, 16, 16)
    assert autoencoder.decode(latents).shape == (2, 3, 64, 64)


def test_measured_latents_have_mean_0_and_deviation_1_in_every_channel() -> None:
    autoencoder, images = woken(), to_pixels(EMOJI.training.images)
    images = images + 0.3 * torch.randn_like(images)
    autoencoder.measure(images, batch=7)
    latents = autoencoder.encode(images)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(8), atol=0.02, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(8), atol=0.05, rtol=0)


def test_scaling_latents_leaves_what_is_decoded_alone() -> None:
    autoencoder, images = woken(), to_pixels(EMOJI.training.images)
    latents = autoencoder.encode(images)
    decoded = autoencoder.decode(latents)
    assert latents.abs().max() < LIMIT
    autoencoder.latent_mean += 0.1
    autoencoder.latent_deviation *= 0.7
    assert not torch.allclose(autoencoder.encode(images), latents)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(images)), decoded)


def test_latents_are_clipped() -> None:
    autoencoder = woken()
    autoencoder.latent_deviation *= 1e-4
    assert autoencoder.encode(to_pixels(EMOJI.training.images)).abs().max() == LIMIT


def test_a_latent_acts_on_pixels_of_neighbouring_tiles_but_not_on_distant_ones() -> None:
    autoencoder = woken()
    latents = torch.zeros(1, 8, 16, 16)
    changed = latents.clone()
    changed[..., 8, 8] = 1
    difference = (autoencoder.decode(changed) - autoencoder.decode(latents)).abs().sum((0, 1))
    tile = difference[32:36, 32:36].clone()
    assert tile.min() > 0
    assert difference[28:32, 28:40].max() > 0
    assert difference[:8].max() == 0 == difference[:, :8].max()
