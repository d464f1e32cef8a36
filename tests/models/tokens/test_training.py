import itertools
import math
from pathlib import Path

import pytest
import torch

from marche_fx.errors import TrainingError
from marche_fx.models import load_checkpoint, save_weights
from marche_fx.models.tokens.training import (
    CodedFashion,
    Recipe,
    cosine_mask,
    encode_fashion,
    held_out_loss,
    masked_loss,
    train_maskgit,
    train_tokenizer,
)
from tests.models.tiny import tiny_images

from .tiny import tiny_garments, tiny_maskgit, tiny_tokenizer

RECIPE = Recipe(batch=8, maskgit_rate=1e-2, tokenizer_rate=1e-2)


def quiet(share: float, step: int, loss: float) -> None:
    pass


def patterns(rows: int = 40) -> CodedFashion:
    """Each class is one code, all over the image."""
    labels = torch.arange(rows) % 10
    return CodedFashion(labels[:, None].expand(-1, 196).contiguous(), labels)


def test_the_loss_is_the_mean_over_masked_codes_alone() -> None:
    model, data = tiny_maskgit(), patterns(4)
    mask = cosine_mask(4, 196, torch.Generator().manual_seed(0))
    logits = model(data.codes.masked_fill(mask, model.mask_id), data.labels).log_softmax(-1)
    expected = -logits.gather(2, data.codes[..., None])[..., 0][mask].mean()
    torch.testing.assert_close(masked_loss(model, data.codes, data.labels, mask), expected)


def test_masks_follow_the_cosine() -> None:
    counts = cosine_mask(1000, 196, torch.Generator().manual_seed(0)).sum(-1)
    assert counts.min() >= 1
    expected = [math.ceil(196 * math.cos(math.pi / 2 * (row + 0.5) / 1000)) for row in range(1000)]
    assert (counts.sort(descending=True).values - torch.tensor(expected)).abs().max() <= 1


@pytest.mark.slow
def test_both_models_learn(tmp_path: Path) -> None:
    data, model = patterns(), tiny_maskgit()
    before = held_out_loss(model, data)
    train_maskgit(model, data, 3.0, RECIPE, bf16=False, tell=quiet)
    assert held_out_loss(model, data) < 0.5 * before
    gray = torch.full((16, 1, 28, 28), 200, dtype=torch.uint8)
    tokenizer = tiny_tokenizer()
    pixels = gray.float() / 127.5 - 1
    error = (tokenizer(pixels) - pixels).square().mean()
    train_tokenizer(tokenizer, gray, 2.0, RECIPE, bf16=False, tell=quiet)
    assert (tokenizer(pixels) - pixels).square().mean() < 0.2 * error


def test_images_are_encoded_in_their_order() -> None:
    tokenizer, data = tiny_tokenizer().eval(), tiny_images(5, size=28)
    coded = encode_fashion(tokenizer, data)
    assert coded.codes.shape == (5, 196)
    assert torch.equal(coded.labels, data.labels)
    torch.testing.assert_close(coded.codes[3:4], tokenizer.encode(data.images[3:4].float() / 127.5 - 1))


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(TrainingError, match="no images to train on"):
        train_maskgit(tiny_maskgit(), patterns(0), 1.0, RECIPE, bf16=False, tell=quiet)


def test_weights_load_from_a_file(tmp_path: Path) -> None:
    garments = tiny_garments()
    save_weights(garments, tmp_path / "weights.safetensors")
    loaded = load_checkpoint(tiny_garments().apply(zero), tmp_path / "weights.safetensors")
    for (name, own), other in zip(loaded.state_dict().items(), itertools.cycle([garments.state_dict()])):
        assert torch.equal(own, other[name].half().float())


def zero(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        torch.nn.init.zeros_(parameter)
