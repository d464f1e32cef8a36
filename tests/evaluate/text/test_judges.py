import math
from pathlib import Path

import pytest
import torch

from marche_fx.evaluate.text.judges import OtherJudge, nats_of_answers
from marche_fx.evaluate.text.prompts import load_prompts
from marche_fx.models.bundled import load_tokenizer
from marche_fx.models.text import pseudo_likelihood
from tests.models.text.tiny import LINES

from .short import MODEL

PROMPT, ANSWERS = load_prompts(2, 24).split([16, 8], 1)


def test_pieces_masked_one_by_one_have_the_pseudo_likelihood() -> None:
    whole = pseudo_likelihood(MODEL, torch.cat([PROMPT, ANSWERS], 1), mask_id=0)
    found = nats_of_answers(MODEL, PROMPT, ANSWERS, mask_id=0, apart=8)
    torch.testing.assert_close(found, whole[:, 16:], rtol=1e-4, atol=1e-4)


def test_pieces_masked_together_know_less_and_every_one_is_told() -> None:
    few, many = (nats_of_answers(MODEL, PROMPT, ANSWERS, mask_id=0, apart=apart) for apart in (2, 8))
    assert few.shape == many.shape == ANSWERS.shape
    assert (few > 0).all()
    assert few.mean() > many.mean()


def test_the_other_judge_likes_what_it_has_read(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("\n".join(LINES))
    judge = OtherJudge(text)
    tokenizer = load_tokenizer()
    pieces = torch.tensor([tokenizer.encode_batch([f"{LINES[0]}\n{LINES[1]}\n"])[0].ids])
    known, shuffled = pieces, pieces[:, torch.randperm(pieces.shape[1], generator=torch.Generator().manual_seed(0))]
    (good,), (bad,) = (judge.bits_per_byte(known[:, :4], own[:, 4:]) for own in (known, shuffled))
    assert good < 0.5 * bad
    nats = judge.ngrams.nats(known)[0, 4:].sum().item()
    size = len(tokenizer.decode(known[0, 4:].tolist()).encode())
    assert good == pytest.approx(nats / size / math.log(2))
