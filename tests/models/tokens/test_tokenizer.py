import torch
from hypothesis import given
from hypothesis import strategies as st

from marche_fx.models.tokens import ImageTokenizer
from marche_fx.models.tokens.tokenizer import reconstruction_loss

from .tiny import tiny_tokenizer

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)


@given(LEVELS)
def test_codes_and_digits_are_one_to_one(levels: tuple[int, ...]) -> None:
    tokenizer = ImageTokenizer(levels, width=8)
    codes = torch.arange(tokenizer.codes)[:, None]
    digits = tokenizer.digits_of(codes)
    assert digits.shape == (tokenizer.codes, len(levels), 1)
    assert torch.equal(tokenizer.number(digits), codes)
    for channel, level in enumerate(levels):
        assert set(digits[:, channel].flatten().tolist()) == set(range(level))


def test_decoding_codes_gives_what_training_sees_of_an_image() -> None:
    tokenizer = tiny_tokenizer().eval()
    images = torch.rand(3, 1, 28, 28) * 2 - 1
    codes = tokenizer.encode(images)
    assert codes.shape == (3, 196)
    assert codes.min() >= 0
    assert codes.max() < tokenizer.codes
    torch.testing.assert_close(tokenizer.decode(codes), tokenizer(images).detach().clamp(-1, 1))


def test_gradients_pass_the_rounding() -> None:
    tokenizer = tiny_tokenizer()
    reconstruction_loss(tokenizer, torch.rand(2, 1, 28, 28)).backward()
    assert all(own.grad is not None and own.grad.abs().sum() > 0 for own in tokenizer.parameters())


def test_codes_do_not_depend_on_the_images_beside_them() -> None:
    tokenizer = tiny_tokenizer().eval()
    images = torch.rand(3, 1, 28, 28) * 2 - 1
    assert torch.equal(tokenizer.encode(images)[1:2], tokenizer.encode(images[1:2]))
