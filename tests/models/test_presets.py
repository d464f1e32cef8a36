from collections.abc import Callable

import pytest
import torch

from marche_fx.models.emoji.autoencoder import LIMIT, Autoencoder
from marche_fx.models.mar import MAR
from marche_fx.models.presets import mar_base, mar_emoji, mar_fashion, mar_huge, mar_large


@pytest.mark.parametrize(("build", "millions"), [(mar_base, 208), (mar_large, 479), (mar_huge, 943)])
def test_published_sizes_have_their_published_number_of_parameters(build: Callable[[], MAR], millions: float) -> None:
    with torch.device("meta"):
        model = build()
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(millions * 1e6, rel=0.01)
    assert (model.seq_len, model.token_embed_dim, model.buffer_size, model.num_classes) == (256, 16, 64, 1000)


def test_the_bundled_size_is_small_but_deep_enough() -> None:
    model = mar_fashion()
    assert (model.seq_len, model.token_embed_dim, model.num_classes) == (196, 4, 10)
    assert min(len(model.encoder_blocks), len(model.decoder_blocks)) >= 4
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) <= 16e6  # bytes in float16


def test_the_size_for_emoji_has_256_latents_of_the_autoencoder_and_fits_into_31_megabytes_with_it() -> None:
    model, autoencoder = mar_emoji(), Autoencoder()
    assert (model.seq_len, model.token_embed_dim, model.num_classes) == (256, len(autoencoder.latent_mean), 98)
    assert model.diffloss.gen_diffusion.limit == LIMIT
    both = (*model.parameters(), *autoencoder.parameters())
    assert 2 * sum(parameter.numel() for parameter in both) <= 31e6  # bytes in float16


def test_options_override_a_preset() -> None:
    model = mar_fashion(num_sampling_steps=7, decoder_depth=2)
    assert len(model.diffloss.gen_diffusion) == 7
    assert len(model.decoder_blocks) == 2
