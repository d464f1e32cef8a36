from pathlib import Path

import pytest
import torch

from marche_fx.models import load_checkpoint
from marche_fx.models.text import TextDiffusion
from marche_fx.models.text.training import Progress
from marche_fx.models.text.watching import watch

from .tiny import tiny_corpus, tiny_model, tiny_tokenizer


def knowing_nothing() -> TextDiffusion:
    """A model to which all pieces are alike: fewer bits than one that is wrong."""
    model = tiny_model()
    torch.nn.init.zeros_(model.norm.weight)
    return model


def wrong() -> TextDiffusion:
    model = tiny_model()
    torch.nn.init.constant_(model.norm.weight, 100.0)
    return model


def test_the_weights_with_the_fewest_bits_are_kept_also_by_a_run_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best.safetensors"

    def kept() -> float:
        return float(load_checkpoint(tiny_model(), best).norm.weight[0])

    tell = watch(tiny_corpus(), tiny_tokenizer(), best, length=32, every=100)
    for model, expected in ((wrong(), 100.0), (knowing_nothing(), 0.0), (wrong(), 0.0)):
        tell(model, Progress(1, 2.0, 3.0))
        assert kept() == expected
    goes_on = watch(tiny_corpus(), tiny_tokenizer(), best, length=32, every=100)
    goes_on(wrong(), Progress(2, 2.0, 3.0))
    assert kept() == 0.0
    printed = capsys.readouterr().out
    assert [("the fewest yet" in line) for line in printed.splitlines() if "held out" in line] == [
        True,
        True,
        False,
        False,
    ]
