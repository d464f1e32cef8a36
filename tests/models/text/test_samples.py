from marche_fx.models.text.samples import samples

from .tiny import tiny_corpus, tiny_model, tiny_tokenizer


def test_samples_show_what_was_given_and_how_it_goes_on() -> None:
    corpus, tokenizer = tiny_corpus(), tiny_tokenizer()
    shown = samples(tiny_model().eval(), corpus, tokenizer, 0.8, count=2, given=8, length=32)
    title, *rows = shown.split("\n\n")
    assert title.startswith("temperature 0.8, ")
    given = tokenizer.decode(corpus.pieces[:8].tolist())
    assert rows[0].startswith(f"{given} >>> ")
    assert shown == samples(tiny_model().eval(), corpus, tokenizer, 0.8, count=2, given=8, length=32)
