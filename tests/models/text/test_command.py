from pathlib import Path

import pytest
import torch

from marche_fx.models import load_checkpoint
from marche_fx.models.text import TextDiffusion
from marche_fx.models.text.vocabulary import read_tokenizer
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
