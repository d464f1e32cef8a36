import torch

from marche_fx.evaluate.text.prompts import load_prompts
from marche_fx.models.bundled import (
    WEIGHTS,
    load_fashion_mar,
    load_garment_tokens,
    load_judge,
    load_text_model,
    load_tokenizer,
)
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
