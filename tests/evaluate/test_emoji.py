import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marche_fx.errors import ArgumentError
from marche_fx.evaluate import emoji
from marche_fx.evaluate.emoji import WAYS, Study, parse_way, run
from marche_fx.models import save_weights
from marche_fx.models.emoji.autoencoder import AUTOENCODER_FILE
from marche_fx.models.emoji.judge import emoji_judge
from marche_fx.models.judge import JUDGE_FILE
from marche_fx.models.train import WEIGHTS_FILE
from marche_fx.refresh import SelectiveRefresh, preset
from tests.models.emoji.tiny import EMOJI, tiny_autoencoder, tiny_mar


def random(model: Any) -> Any:
    """With weights that make every part of it count."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def study() -> Study:
    models = random(tiny_mar()), random(tiny_autoencoder()), random(emoji_judge())
    return Study(*models, labels=torch.arange(5) % 3, batch=3, cfg=2.0, temperature=1.0)


def test_a_word_says_policy_steps_and_denoising() -> None:
    exact, cached = parse_way("exact@16"), parse_way("balanced@64+dpm++2m:logsnr:8")
    assert (exact.steps, exact.policy, exact.denoising) == (16, None, None)
    assert (cached.steps, cached.policy, cached.denoising) == (64, preset("balanced"), "dpm++2m:logsnr:8")
    assert parse_way("default@8").policy == SelectiveRefresh()
    assert parse_way("selective:0.3@8").policy == SelectiveRefresh(0.3)
    assert [parse_way(word).word for word in WAYS] == list(WAYS)


@pytest.mark.parametrize("word", ["exact", "exact@", "exact@0", "@8", "exact@64.5", "theirs@8"])
def test_a_word_that_says_less_is_refused(word: str) -> None:
    with pytest.raises(ArgumentError, match=r"number of decoding steps|no policy"):
        parse_way(word)


def test_ways_share_their_draws(study: Study) -> None:
    exact = study.draw(parse_way("exact@4"))
    again, all_anew = study.draw(parse_way("exact@4")), study.draw(parse_way("selective:1.0@4"))
    assert torch.equal(exact.features, again.features)
    torch.testing.assert_close(all_anew.pictures, exact.pictures, atol=2e-3, rtol=0)
    assert not torch.allclose(study.draw(parse_way("exact@2")).pictures, exact.pictures, atol=1e-2)
    assert len(exact.features) == len(exact.predicted) == 5


def test_caches_save_and_other_denoising_changes(study: Study) -> None:
    exact, cached = study.draw(parse_way("exact@8")), study.draw(parse_way("selective:0.1@8"))
    assert cached.flops_ratio < 0.9 < exact.flops_ratio == 1
    fewer = study.draw(parse_way("exact@8+quadratic:2"))
    assert not torch.allclose(fewer.pictures, exact.pictures, atol=1e-2)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights of tiny models, which the command is told to take for those of emoji."""
    for file, model in (
        (WEIGHTS_FILE, tiny_mar()),
        (AUTOENCODER_FILE, tiny_autoencoder()),
        (JUDGE_FILE, emoji_judge()),
    ):
        save_weights(random(model), tmp_path / file)
    monkeypatch.setattr(emoji, "load_emoji", lambda _: EMOJI)
    monkeypatch.setattr(emoji, "mar_emoji", tiny_mar)
    monkeypatch.setattr(emoji, "Autoencoder", tiny_autoencoder)
    return tmp_path


@pytest.fixture
def command(weights: Path) -> Callable[..., dict[str, Any]]:
    def call(**changed: Any) -> dict[str, Any]:
        asked = {"data": None, "weights": weights, "out": weights / "out", "device": "cpu", "minutes": float("inf")}
        drawn = {"ways": ["exact@3", "exact@2"], "images": 12, "batch": 8, "cfg": 2.0, "temperature": 1.0}
        run(Namespace(**(asked | drawn | changed)))
        found: dict[str, Any] = json.loads((weights / "out" / "study.json").read_text())
        return found

    return call


def test_the_study_compares_every_way_with_the_first(weights: Path, command: Callable[..., dict[str, Any]]) -> None:
    found = command()
    first, second = found["rows"]
    assert (first["way"], second["way"]) == ("exact@3", "exact@2")
    assert set(first["over_first"].values()) == {0.0}
    over = second["frechet"]["estimate"] - first["frechet"]["estimate"]
    assert second["over_first"]["estimate"] == pytest.approx(over) != 0
    assert second["over_first"]["low"] < over < second["over_first"]["high"]
    assert 0 <= second["label_accuracy"] <= 1
    assert {path.name for path in (weights / "out").iterdir()} == {"study.json", "exact@3.png", "exact@2.png"}
    references = found["references"]
    assert references["pictures_seen"]["estimate"] > 0
    assert 0 <= references["pictures_seen_label_accuracy"] <= 1 >= references["held_out_label_accuracy"] >= 0


def test_no_way_is_begun_after_the_time(
    command: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [row["way"] for row in command(minutes=0.0)["rows"]] == ["exact@3"]
    assert "left out: exact@2" in capsys.readouterr().out
