import pytest
import torch

from marche_fx import ArgumentError
from marche_fx.evaluate.text.prompts import CHOOSING, PROMPTS_FILE, cut_prompts, load_prompts
from tests.models.text.tiny import tiny_corpus


def test_prompts_to_choose_by_and_to_report_are_others() -> None:
    reported, choosing = load_prompts(16, 512), load_prompts(CHOOSING, 512, choosing=True)
    assert reported.shape == choosing.shape == (16, 512)
    assert len(torch.cat([reported, choosing]).unique(dim=0)) == 32


def test_shorter_prompts_are_the_ends_of_longer_ones() -> None:
    assert torch.equal(load_prompts(3, 128), load_prompts(16, 512)[:3, -128:])


def test_no_prompt_holds_a_mask_and_the_file_is_small() -> None:
    assert (load_prompts(16, 512) > 0).all()
    assert PROMPTS_FILE.stat().st_size < 100_000


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(ArgumentError, match="there are 16 prompts, got 17"):
        load_prompts(17, 128)
    with pytest.raises(ArgumentError, match="there are 512 pieces in a prompt, got 513"):
        load_prompts(1, 513)


def test_prompts_are_cut_at_beginnings_of_lines_far_apart() -> None:
    corpus = tiny_corpus()
    prompts = cut_prompts(corpus, 4, 8)
    begins = [
        int(begin)
        for begin in corpus.starts
        if any(torch.equal(corpus.pieces[begin : begin + 8], own) for own in prompts)
    ]
    assert prompts.shape == (4, 8)
    assert len(begins) >= 4
    assert len(prompts.unique(dim=0)) == 4
