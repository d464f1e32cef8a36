import pytest
import torch
from torch import Tensor

from marche_fx.evaluate.text.prompts import load_prompts
from marche_fx.models.bundled import (
    EMOJI_WEIGHTS,
    WEIGHTS,
    load_emoji_autoencoder,
    load_emoji_judge,
    load_emoji_kinds,
    load_emoji_mar,
    load_fashion_mar,
    load_garment_tokens,
    load_judge,
    load_text_model,
    load_tokenizer,
)
from marche_fx.models.judge import FEATURES_FILE, load_features
from marche_fx.models.text import Corpus, bits_per_byte, encode, generate, pseudo_likelihood
from marche_fx.models.tokens import Decoding

from .test_judge import IMAGES, LABELS


def test_the_bundled_mar_is_small_trained_and_in_eval_mode() -> None:
    model = load_fashion_mar()
    assert not model.training
    assert (WEIGHTS / "mar_fashion.safetensors").stat().st_size <= 16e6
    torch.manual_seed(0)
    with torch.no_grad():
        assert model(IMAGES[:50], LABELS[:50]).item() < 0.3  # Untrained: 1.9.


def test_garments_of_the_bundled_mar_are_recognised() -> None:
    labels = torch.arange(10)
    with torch.no_grad():
        model = load_fashion_mar(num_sampling_steps=25)
        images = model.sample_tokens(10, 12, 2.0, labels=labels, generator=torch.Generator().manual_seed(0))
    assert load_judge().accuracy(images, labels) >= 0.6


def test_the_bundled_text_model_is_small_trained_and_in_eval_mode() -> None:
    model, tokenizer = load_text_model(), load_tokenizer()
    assert not model.training
    assert (WEIGHTS / "text.safetensors").stat().st_size <= 16e6
    assert tokenizer.get_vocab_size() == model.embed.num_embeddings
    verse = encode(["And the LORD spake unto Moses, saying, Speak unto the children of Israel."], tokenizer)
    assert pseudo_likelihood(model, verse.pieces[None], mask_id=model.mask_id).mean() < 1.5  # Untrained: 8.3.


def test_the_bundled_text_model_knows_verses_that_it_has_not_read() -> None:
    model, tokenizer = load_text_model(), load_tokenizer()
    prompts = load_prompts(16, 512)
    size = sum(len(tokenizer.decode(own).encode()) for own in prompts.tolist())
    unseen = Corpus(prompts.flatten(), torch.zeros(1, dtype=torch.long), size)
    assert bits_per_byte(model, unseen, mask_id=model.mask_id) < 1.43  # After an hour on a CPU: 1.50.


def test_the_bundled_text_model_writes_words_of_its_text() -> None:
    model, tokenizer = load_text_model(), load_tokenizer()
    prompt = encode(["And it came to pass in those days, that the king sent messengers."], tokenizer).pieces[None]
    ids = generate(model, prompt, 32, mask_id=model.mask_id, steps_per_block=16)
    assert (ids != model.mask_id).all()
    assert pseudo_likelihood(model, ids, mask_id=model.mask_id)[:, prompt.shape[1] :].mean() < 2
    assert {"the", "and"} & set(tokenizer.decode(ids[0, prompt.shape[1] :].tolist()).lower().split())


def test_the_bundled_tokenizer_and_maskgit_are_small_trained_and_in_eval_mode() -> None:
    garments = load_garment_tokens()
    assert not any(module.training for module in garments.modules())
    assert (WEIGHTS / "garment_tokens.safetensors").stat().st_size <= 8e6
    painted = garments.tokenizer.decode(garments.tokenizer.encode(IMAGES[:50]))
    assert (painted - IMAGES[:50]).square().mean() < 0.01  # Untrained: 0.9.


def test_garments_as_tokens_are_recognised() -> None:
    labels = torch.arange(10)
    images = load_garment_tokens().sample(labels, Decoding(steps=8), generator=torch.Generator().manual_seed(0))
    assert load_judge().accuracy(images, labels) >= 0.8


EMOJI_LABELS = torch.arange(4, 98, 8)


@pytest.fixture(scope="module")
def emoji_pictures() -> Tensor:
    """A picture for each of `EMOJI_LABELS`, in few decoding steps and few of the head."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        mar = load_emoji_mar(num_sampling_steps="10")
        latents = mar.sample_tokens(len(EMOJI_LABELS), 4, 3.0, labels=EMOJI_LABELS, generator=generator)
        return load_emoji_autoencoder().decode(latents)


def test_the_bundled_models_of_emoji_are_small_trained_and_in_eval_mode() -> None:
    judge = load_emoji_judge()
    models = load_emoji_mar(), load_emoji_autoencoder(), judge
    assert not any(module.training for model in models for module in model.modules())
    assert sum(path.stat().st_size for path in EMOJI_WEIGHTS.iterdir()) <= 32e6
    features = load_features(EMOJI_WEIGHTS / FEATURES_FILE)
    assert len(features) == 1135
    torch.testing.assert_close(features.mean(0), judge.feature_mean, atol=1e-2, rtol=1e-2)


def test_every_label_of_emoji_has_a_kind() -> None:
    kinds = load_emoji_kinds()
    assert len(set(kinds)) == load_emoji_mar().class_emb.num_embeddings == 98
    assert len({kind.group for kind in kinds}) == load_emoji_judge().classify.out_features == 9


def test_emoji_of_the_bundled_mar_are_recognised(emoji_pictures: Tensor) -> None:
    assert emoji_pictures.shape == (len(EMOJI_LABELS), 3, 64, 64)
    assert emoji_pictures.isfinite().all()
    kinds = load_emoji_kinds()
    groups = sorted({kind.group for kind in kinds})
    wanted = torch.tensor([groups.index(kinds[label].group) for label in EMOJI_LABELS.tolist()])
    with torch.inference_mode():
        assert load_emoji_judge().accuracy(emoji_pictures, wanted) >= 0.5  # By chance: 0.14.


def test_pictures_survive_the_bundled_autoencoder(emoji_pictures: Tensor) -> None:
    autoencoder = load_emoji_autoencoder()
    with torch.inference_mode():
        again = autoencoder.decode(autoencoder.encode(emoji_pictures))
    assert (again - emoji_pictures).square().mean() < 0.01  # Untrained: 0.7.
