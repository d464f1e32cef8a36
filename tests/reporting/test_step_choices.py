"""Which tokens a session computed, and why: as values, as a table, as a picture."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import marche_fx
from marche_fx import ArgumentError, History, Monitor, Refresh, RefreshPolicy, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.models.mar import mask_by_order
from marche_fx.reporting.picture import COLOURS, Grid, place_of
from marche_fx.reporting.session_report import SessionReport
from marche_fx.reporting.step_choices import by_name, choices_of
from marche_fx.runtime.records import REASONS
from tests.networks import Transformer, small_mar
from tests.reporting.used import X, used


@cache
def decoded() -> nn.Module:
    """A session of 20 steps on 25 tokens: in step t, token t of the first sample changes, and token 24 is read."""
    torch.manual_seed(0)
    policy = SelectiveRefresh(0.1, warmup=2)
    optimized = marche_fx.transform(Transformer(25, 16, 2).eval(), refresh=policy, compile=False)
    x = torch.randn(2, 25, 16)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for step in range(20):
            x = x.clone()
            x[0, step] = torch.randn(16)
            optimized(x)[:, 24].sum()
    return optimized


def session_of(optimized: nn.Module) -> SessionReport:
    session = marche_fx.report(optimized).session
    assert session is not None
    return session


def test_why_each_token_was_computed_is_told_step_by_step() -> None:
    choices = session_of(decoded()).choices
    assert [(own.step, own.method, own.visible) for own in choices] == [(step, "forward", 25) for step in range(20)]
    assert [own.active for own in choices] == [25, 25, *[8] * 18]
    assert choices[0].count("changed") == [25, 25], "nothing was computed before"
    assert choices[1].count("refreshed") == [23, 24]
    for own in choices[2:]:
        # Three asked for, and room for more in a multiple of eight.
        counts = [own.count(reason) for reason in ("changed", "queried", "refreshed", "cached")]
        assert counts == [[1, 0], [1, 1], [6, 7], [17, 17]]
        assert own.flops_ratio == pytest.approx(8 / 25)
        first, second = own.tokens_text()
        assert (first[own.step], first[24], second[24]) == ("c", "q", "q")
        assert sorted(first) == sorted("c" + "q" + 6 * "r" + 17 * ".")


def test_a_session_is_plain_values_token_by_token_if_asked_for() -> None:
    session = session_of(decoded())
    found = session.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert (
        sorted(found)
        == list(found)
        == ["cache_bytes", "causes", "choices", "flops_ratio", "rows_ratio", "steps", "streams", "verdict"]
    )
    assert found["choices"][5] == {
        "active": 8,
        "changed": [1, 0],
        "drift": None,
        "flops_ratio": pytest.approx(8 / 25),
        "method": "forward",
        "queried": [1, 1],
        "read": 8,
        "refreshed": [6, 7],
        "step": 5,
        "visible": 25,
    }
    assert marche_fx.report(decoded()).to_dict()["session"] == found
    first, second = session.to_dict(tokens=True)["choices"][5]["tokens"]
    assert (len(first), len(second), first[5], second[5] != "c") == (25, 25, "c", True)


def test_reasons_come_to_the_host_at_once() -> None:
    session = optimization_of(decoded()).last_session
    assert session is not None
    with Transfers() as transfers:
        assert len(choices_of(session)) == 20
    assert transfers.count == 1


class Transfers(TorchFunctionMode):
    """Counts what is copied to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (Tensor.cpu, Tensor.tolist, Tensor.item, Tensor.numpy)
        return func(*args, **(kwargs or {}))


def lines_of_steps(text: str) -> list[list[str]]:
    lines = [line.split() for line in text.splitlines()]
    return [line for line in lines if line and (line[0].isdigit() or line[0] == "...")]


def test_a_printed_session_shows_the_first_steps_and_the_last() -> None:
    session = session_of(decoded())
    lines = lines_of_steps(str(session))
    assert [line[0] for line in lines] == ["0", "1", "2", "3", "4", "5", "6", "7", "...", "16", "17", "18", "19"]
    assert lines[8] == ["...", "8", "more"]
    assert lines[5] == ["5", "forward", "8", "of", "25", "0-1", "1", "6-7", "0.320"]
    assert "last session" in str(session)
    assert len(lines_of_steps(session.text(steps=None))) == 20
    assert [line[0] for line in lines_of_steps(session.text(steps=1))] == ["0", "..."]
    assert [line[0] for line in lines_of_steps(session.text(steps=20))] == [str(step) for step in range(20)]
    assert str(session) in str(marche_fx.report(decoded()))
    for steps in (0, -1, 2.5, True):
        with pytest.raises(ArgumentError, match="steps must be"):
            session.text(steps=steps)  # type: ignore[arg-type]


def test_what_a_monitor_found_is_in_the_table() -> None:
    torch.manual_seed(0)
    monitor = Monitor(every=2, rows=25, max_drift=1e-6)
    policy = SelectiveRefresh(0.0, warmup=1)
    optimized = marche_fx.transform(Transformer(25, 16, 2).eval(), refresh=policy, compile=False, monitor=monitor)
    x = torch.randn(2, 25, 16)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for step in range(4):
            x[:, step] += torch.randn(16)
            optimized(x)[:, 24].sum()
    session = session_of(optimized)
    # The call that was off is there twice, the second time in full.
    assert [(own.step, own.active, own.drift is None) for own in session.choices] == [
        (0, 25, True),
        (1, 8, True),
        (2, 8, True),
        (2, 25, False),
        (3, 8, True),
    ]
    assert "drift" in session.text()
    assert "drift" not in session_of(decoded()).text()


@cache
def decoded_mar() -> nn.Module:
    """Both step methods of a MAR on 3 x 3 tokens behind two class tokens, for three steps."""
    torch.manual_seed(0)
    mar = small_mar().eval()
    optimized = marche_fx.transform(mar, refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    orders = mar.sample_orders(2)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for step in range(3):
            masks = [mask_by_order(9 - 3 * own, orders, 2, 9) for own in (step, step + 1)]
            x = optimized.forward_mae_encoder(X[:, :9, :4] * (1 - masks[0])[..., None], masks[0], X[:, 0])
            optimized.forward_mae_decoder(x, masks[0])[(masks[0] - masks[1]).nonzero(as_tuple=True)]
    return optimized


def test_step_methods_are_told_apart_and_counted_together() -> None:
    choices = session_of(decoded_mar()).choices
    names = ("forward_mae_encoder", "forward_mae_decoder")
    assert [(own.step, own.method) for own in choices] == [(step, name) for step in range(3) for name in names]
    assert [own.visible for own in choices] == [2, 11, 5, 11, 8, 11]
    assert all(own.square == (2, 9) for own in choices), "the image is what the decoder returns"


class Codes(nn.Module):
    """Numbers of tokens in a line ``[B, N]``, or in rows and columns ``[B, H, W]``, and logits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(7, 16), Transformer(16, 16, 2)

    def forward(self, codes: Tensor) -> Tensor:
        return self.body(self.embed(codes).flatten(1, -2)).unflatten(1, codes.shape[1:])


@pytest.mark.parametrize(("shape", "square"), [((2, 16), None), ((2, 4, 4), (0, 16))])
def test_a_square_number_of_words_is_no_image(shape: tuple[int, ...], square: tuple[int, int] | None) -> None:
    torch.manual_seed(0)
    optimized = marche_fx.transform(Codes().eval(), compile=False)
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(torch.zeros(shape, dtype=torch.long)).sum()
    (choices,) = session_of(optimized).choices
    assert choices.square == square


def test_what_moved_what_scored_and_what_read_is_told_of_each_call() -> None:
    choices = session_of(decoded()).choices
    assert (choices[0].moved, choices[0].score, choices[0].decoding_step) == ({}, None, 0)
    for own in choices[2:]:
        ((name, tokens),) = own.moved.items()
        assert name.startswith("'x', read by aten.add (networks.py:")
        # Only the first sample changes, one token a step.
        assert tokens.nonzero().tolist() == [[0, own.step]]
        assert own.score is not None
        refreshed, cached = (own.reasons == REASONS.index(name) for name in ("refreshed", "cached"))
        for sample in range(2):
            assert own.score[sample][refreshed[sample]].min() >= own.score[sample][cached[sample]].max()
        assert own.spared is None
        assert [line.split(":")[0] for line in own.lines] == ["test_step_choices.py"]
        assert (own.stream, own.decoding_step) == (0, own.step)


def test_a_score_is_that_of_the_step_whatever_the_policy_writes_later() -> None:
    class Overwriting(RefreshPolicy):
        def __init__(self) -> None:
            self.priority: Tensor | None = None
            self.wanted: list[list[float]] = []

        def choose(self, history: History) -> Refresh:
            if self.priority is None:
                self.priority = torch.zeros(history.samples, history.tokens)
            self.priority.copy_(torch.randn(history.samples, history.tokens))
            self.wanted.append(self.priority[0].tolist())
            return Refresh(2, self.priority)

    policy = Overwriting()
    optimized = marche_fx.transform(Transformer(25, 16, 2).eval(), refresh=policy, compile=False)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for _ in range(4):
            optimized(X[:, :25])[:, 24].sum()
    choices = session_of(optimized).choices
    assert [own.score is None for own in choices] == [True, False, False, False]
    for own, wanted in zip(choices[1:], policy.wanted[1:], strict=True):
        assert own.score is not None
        assert own.score[0].tolist() == wanted


def test_an_image_is_drawn_below_the_tokens_that_are_not_of_it() -> None:
    found = Grid(2, 3, 3).arranged(np.arange(11))
    assert found.filled(-1).tolist() == [[0, 1, -1], [-1, -1, -1], [2, 3, 4], [5, 6, 7], [8, 9, 10]]
    assert Grid(0, 2, 3).arranged(np.arange(6)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert Grid(1, 2, 2).arranged(np.arange(6)).filled(-1).tolist() == [[0, 5], [-1, -1], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("grid", "tokens", "square", "expected"),
    [
        (None, 11, (2, 9), Grid(2, 3, 3)),
        (None, 25, (0, 25), Grid(0, 5, 5)),
        (None, 30, None, None),
        ((2, 4), 11, (2, 9), Grid(3, 2, 4)),
        ((1, 9), 11, (2, 9), None),
        ((11, 1), 11, (2, 9), None),
        ((5, 6), 30, None, Grid(0, 5, 6)),
    ],
)
def test_a_grid_is_placed_behind_the_other_tokens(grid: Any, tokens: int, square: Any, expected: Grid | None) -> None:
    assert place_of(grid, tokens, square) == expected


def colours_in(path: Path) -> set[tuple[int, ...]]:
    """Colours of at least fifty pixels of a picture."""
    pixels = (imread(path)[..., :3] * 255).round().astype(int).reshape(-1, 3)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(int(part) for part in value) for value, count in zip(values, counts) if count >= 50}


@pytest.mark.parametrize("options", [{}, {"grid": (5, 5)}, {"grid": (2, 7), "sample": 1}, {"grid": (1, 25)}])
def test_a_picture_shows_every_reason_in_its_colour(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "choices.png"
    session_of(decoded()).save_choices(path, **options)
    assert {tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in COLOURS} <= colours_in(path)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture_is_saved_for_a_step_method_and_a_sample(tmp_path: Path, ending: str) -> None:
    for method in (None, "forward_mae_encoder", "forward_mae_decoder"):
        path = tmp_path / f"{method}.{ending}"
        session_of(decoded_mar()).save_choices(path, sample=1, step_method=method)
        assert path.stat().st_size > 1000


def test_a_picture_of_tokens_that_are_no_image_has_a_line_for_each(tmp_path: Path) -> None:
    session_of(used()).save_choices(tmp_path / "choices.png")
    height, width, _ = imread(tmp_path / "choices.png").shape
    assert 250 < height < 1000
    assert width == 900


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (6, 5)}, "grid 6 x 5 has more than the 25 tokens"),
        ({"grid": (5,)}, "grid must be a height and a width"),
        ({"grid": (0, 5)}, "grid must be a height and a width"),
        ({"grid": 5}, "grid must be a height and a width"),
        ({"grid": (2.5, 2)}, "grid must be a height and a width"),
        ({"sample": 2}, r"sample must lie in 0\.\.1, got 2"),
        ({"sample": -1}, r"sample must lie in 0\.\.1, got -1"),
        ({"sample": True}, "sample must lie in"),
        ({"step_method": "decoder"}, "no step method 'decoder' was called in the session; there are forward"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        session_of(decoded()).save_choices(tmp_path / "choices.png", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("choices.gif", r"\.png, \.svg or \.pdf, got 'choices.gif'"),
        ("choices", "got 'choices'"),
        ("no/a.png", "no folder"),
    ],
)
def test_a_picture_with_another_ending_or_no_folder_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        session_of(decoded()).save_choices(tmp_path / name)


def test_a_picture_without_matplotlib_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(decoded())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ArgumentError, match=r"needs matplotlib: pip install 'marche-fx\[cli\]'"):
        session.save_choices(tmp_path / "choices.png")


def test_what_moved_in_one_stream_is_told_of_the_tokens_of_that_stream() -> None:
    own, others = torch.tensor([[True, False]]), torch.tensor([[False, True, True]])
    found = by_name(["x", "text", "x", "t"], [own, others, ~own, torch.tensor([True])], [3, 0, 3, 0], 5)
    told = {name: tokens.int().tolist() for name, tokens in found.items()}
    assert told == {"x": [[0, 0, 0, 1, 1]], "text": [[0, 1, 1, 0, 0]], "t": [[1, 1, 1, 1, 1]]}
