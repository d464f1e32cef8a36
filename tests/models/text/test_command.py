from pathlib import Path

import pytest
import torch

from marche_fx import ArgumentError
from marche_fx.models import load_checkpoint
from marche_fx.models.text import TextDiffusion
from marche_fx.models.text.command import VOCABULARY_FILE, run_training
from marche_fx.models.text.recipe import Recipe
from marche_fx.models.text.vocabulary import read_tokenizer
from marche_fx.saving.locks import held
from tests.models.test_commands import run

from .tiny import LINES


@pytest.mark.slow
def test_train_text_writes_a_vocabulary_and_averaged_weights_that_load(tmp_path: Path) -> None:
    text, out = tmp_path / "text", tmp_path / "run"
    text.write_text("\n".join(LINES * 3))
    output = run("train-text", "--text", text, "--out", out, "--steps", 2, "--decay", 0, "--checkpoint-seconds", 0)
    assert output.count("held out") == 2
    tokenizer = read_tokenizer(out / "vocabulary.json")
    model = load_checkpoint(TextDiffusion(tokenizer.get_vocab_size()), out / "model_ema.safetensors")
    state = torch.load(out / "training.pt", weights_only=True)["averaged"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[f"module.{name}"].half().float())


def test_a_training_has_its_vocabulary_for_itself(tmp_path: Path) -> None:
    text, out = tmp_path / "text", tmp_path / "run"
    text.write_text("\n".join(LINES * 3))
    out.mkdir()
    with (
        held(out / VOCABULARY_FILE, 0, "holding"),
        pytest.raises(ArgumentError, match=r"vocabulary\.json is in use by .* holding since"),
    ):
        run_training(text, out, Recipe(steps=2, decay=0))
    assert list(out.iterdir()) == []
