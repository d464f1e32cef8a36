"""What the report says."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import ArgumentError, SelectiveRefresh, UnsupportedModelError
from marche_fx.passes.graph.source import module_path
from marche_fx.reporting.graphs import PARTS, computed
from marche_fx.reporting.tables import add_row, as_text
from tests.networks import Block, FusedAttention, Mlp, Transformer, WithConvolution, small_mar
from tests.reporting.hostile import NAMES, hostile

X = torch.randn(2, 30, 16)


@cache
def used() -> nn.Module:
    torch.manual_seed(0)
    optimized = marche_fx.transform(
        Transformer(30, 16, 2).eval(), refresh=SelectiveRefresh(0.0, warmup=0), compile=False
    )
    with torch.no_grad(), marche_fx.decoding(optimized):
        for _ in range(3):
            optimized(X)[:, 2].sum()
    return optimized


def test_every_site_is_listed_with_its_module_line_and_state() -> None:
    (step,) = marche_fx.report(used()).steps
    sites = [(site.kind, site.path, site.line.split(":")[0], site.size, site.status) for site in step.sites]
    cached = "keys and values cached"
    assert sites == [
        ("attention", "blocks.0.attention", "networks.py", "2 heads x 8", cached),
        ("attention", "blocks.1.attention", "networks.py", "2 heads x 8", cached),
        ("MLP", "blocks.0.mlp.fc2", "networks.py", "16 -> 32, gelu", "active tokens only"),
        ("MLP", "blocks.1.mlp.fc2", "networks.py", "16 -> 32, gelu", "active tokens only"),
    ]
    assert all(site.claimed for site in step.sites)
    assert (step.samples, step.tokens, step.in_full, step.behind) == (2, 30, (), ())
    # K and V of two sites, float32, and the three output channels.
    assert step.cache_bytes == {"attention": 4 * 2 * 30 * 16 * 4, "result": 2 * 30 * 3 * 4}


def test_rows_and_flops_of_the_last_session_are_counted() -> None:
    session = marche_fx.report(used()).session
    assert session is not None
    ((name, calls, rows, original, flops, original_flops),) = session.rows
    assert (name, calls, rows, original) == ("forward", 3, 2 * (30 + 8 + 8), 2 * 3 * 30)
    # Per token: q, k, v, output and MLP of two layers, and the head; per pair of tokens the two products of attention.
    per_row, per_pair = 2 * (2 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * 3), 2 * 2 * 2 * 16
    assert original_flops == pytest.approx(3 * 2 * 30 * (per_row + 30 * per_pair))
    assert flops == pytest.approx(2 * (30 + 8 + 8) * (per_row + 30 * per_pair))
    assert session.flops_ratio == pytest.approx(46 / 90)


@torch.no_grad()
def test_a_call_of_which_more_is_read_later_is_one_call_of_the_original() -> None:
    torch.manual_seed(0)
    policy = SelectiveRefresh(0.0, warmup=1)
    optimized = marche_fx.transform(Transformer(30, 16, 2).eval(), refresh=policy, compile=False)
    with marche_fx.decoding(optimized):
        for _ in range(4):
            z = optimized(X)
            z[:, :2].sum()
            z[:, 8:10].sum()
    session = marche_fx.report(optimized).session
    assert session is not None
    ((_, calls, rows, original, flops, original_flops),) = session.rows
    assert (calls, original) == (4, 4 * 2 * 30)
    assert [own.step for own in session.choices] == [0, 1, 1, 2, 2, 3, 3]
    assert rows == 2 * (30 + 3 * (8 + 8))
    assert session.flops_ratio == pytest.approx(flops / original_flops)
    assert session.flops_ratio < rows / original + 1e-6
    assert all(own.flops_ratio == pytest.approx(session.choices[1].flops_ratio) for own in session.choices[1:])


def test_a_report_before_the_first_call_says_so() -> None:
    report = marche_fx.report(marche_fx.transform(Transformer(30, 16, 2).eval()))
    assert "captured at its first call" in str(report)


def test_explain_tells_the_plan_without_touching_the_model() -> None:
    model = Transformer(30, 16, 2).eval()
    methods = dict(vars(model))
    text = str(marche_fx.explain(model, X))
    assert "blocks.1.attention" in text
    assert "10%" in text
    assert vars(model).keys() == methods.keys()


def test_the_rows_flops_and_caches_of_a_site_are_those_of_its_active_tokens() -> None:
    (step,) = marche_fx.report(used(), active=0.2).steps
    attention, mlp = step.sites[0], step.sites[2]
    assert (attention.rows, attention.active_rows) == ((2 * 30,), (2 * 6,))
    # The products with keys and with values: for every row, 30 keys of 16 channels.
    assert (attention.flops, attention.active_flops) == (60 * 30 * 2 * 2 * 16, 12 * 30 * 2 * 2 * 16)
    assert (mlp.flops, mlp.active_flops) == (60 * 2 * 2 * 16 * 32, pytest.approx(12 * 2 * 2 * 16 * 32))
    # K and V of two samples in float32; an MLP reads no cache.
    assert (attention.cache_bytes, mlp.cache_bytes) == (2 * 2 * 30 * 16 * 4, 0)
    assert step.active == (6,)
    assert step.saving(0.2) == pytest.approx(step.flops / step.active_flops)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan"), "0.1", True])
def test_a_fraction_is_a_share(fraction: float) -> None:
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        marche_fx.report(used(), active=fraction)
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        marche_fx.explain(Transformer(30, 16, 2).eval(), X, active=fraction)


def test_at_any_fraction_one_token_is_active_at_least() -> None:
    assert [marche_fx.report(used(), active=share).steps[0].active for share in (0, 1)] == [(1,), (30,)]


class Joined(nn.Module):
    """Two streams of tokens with weights of their own, which meet in attention twice."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = FusedAttention(16, 2, 35)
        self.left, self.right = Mlp(16), Mlp(16)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        for _ in range(2):
            both = self.attention(torch.cat([x, text], 1))
            x, text = x + self.left(both[:, :30]), text + self.right(both[:, 30:])
        return x


def test_streams_of_tokens_are_told_apart() -> None:
    report = marche_fx.explain(Joined().eval(), X, torch.randn(2, 5, 16))
    (step,) = report.steps
    assert (step.streams, step.active) == ((30, 5), (3, 1))
    rows = {site.path: (site.rows, site.active_rows) for site in step.sites}
    assert rows["attention"] == ((60, 10), (6, 2))
    assert rows["left.fc2"] == ((60,), (6,))
    assert rows["right.fc2"] == ((10,), (2,))
    text = str(report)
    assert "2 samples x 30 + 5 tokens" in text
    assert "stream 1: 5 tokens" in text
    assert "60 + 10" in text


class Between(nn.Module):
    """Two blocks with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = (Block(16, FusedAttention(16, 2, 30), Mlp(16)) for _ in range(2))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


@torch.library.custom_op("marche_fx_report_test::halve", mutates_args=())
def halve(x: Tensor) -> Tensor:
    return x / 2


@halve.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def neighbours(x: Tensor) -> Tensor:
    weight = torch.ones(16, 16, 3, device=x.device)
    return x + F.conv1d(x.transpose(1, 2), weight, padding=2, dilation=2).transpose(1, 2)


@pytest.mark.parametrize(
    ("between", "operator", "reason"),
    [
        (neighbours, "aten.convolution", "mixes a window of 5 tokens"),
        (lambda x: x + x.mean(1, keepdim=True), "aten.mean", "reduces the tokens of a sample to one value"),
        (lambda x: x + x.cumsum(1), "aten.cumsum", "mixes all tokens"),
        (lambda x: x + x.roll(1, 1), "aten.index_select", "leaves tokens out, moves or joins them"),
        (lambda x: x + F.pad(x[:, :-1], (0, 0, 1, 0)), "aten.slice", "leaves tokens out, moves or joins them"),
        (lambda x: x + halve(x), "marche_fx_report_test.halve", "has no rule"),
    ],
)
def test_what_runs_on_all_tokens_says_why_and_which_cache_it_needs(
    between: Callable[[Tensor], Tensor], operator: str, reason: str
) -> None:
    (step,) = marche_fx.explain(Between(between).eval(), X).steps
    found = next(own for own in (*step.in_full, *step.behind) if own.operator == operator)
    assert (found.operator, found.reason[: len(reason)]) == (operator, reason)
    assert re.fullmatch(r"(test_report|networks)\.py:\d+", found.line)
    assert found.has_rule == (reason != "has no rule")
    assert found.cache_bytes == 2 * 30 * 16 * 4
    assert step.cache_bytes["operand"] == found.cache_bytes


def test_what_is_computed_from_an_operator_in_full_is_listed_if_it_costs() -> None:
    weight = torch.randn(16, 16)
    (step,) = marche_fx.explain(Between(lambda x: x + x.mean(1, keepdim=True) @ weight).eval(), X).steps
    (found,) = step.behind
    assert found.reason == "is computed from what runs on all tokens"
    assert found.flops == step.fixed_flops["inside"] == 2 * 2 * 16 * 16


def test_an_operator_without_a_rule_says_how_to_register_one() -> None:
    report = marche_fx.explain(Between(halve).eval(), X)
    (step,) = report.steps
    (found,) = step.without_rule
    assert "marche_fx.register_rule(torch.ops.marche_fx_report_test.halve, ...)" in found.reason
    first = step.sites[0]
    assert not first.claimed
    assert re.fullmatch(
        r"before the region: its tokens go no further than marche_fx_report_test\.halve "
        r"\(test_report\.py:\d+\), which has no rule",
        first.status,
    )
    assert (first.flops, first.rows) == (first.active_flops, first.active_rows)
    assert "outside the region: marche_fx_report_test.halve" in str(report)


class Summary(nn.Module):
    """An MLP on the mean of all tokens, which is not the tokens' any more."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(16, FusedAttention(16, 2, 30), Mlp(16))
        self.mlp = Mlp(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.block(x).cumsum(1))


def test_a_site_that_is_not_claimed_names_what_mixes_tokens_before_it() -> None:
    (step,) = marche_fx.explain(Summary().eval(), X).steps
    (site,) = [site for site in step.sites if not site.claimed]
    assert site.path == "mlp.fc2"
    assert re.fullmatch(r"after the region: aten\.cumsum \(test_report\.py:\d+\) mixes tokens before it", site.status)


def test_an_operator_that_runs_in_full_is_listed_with_its_source_and_share() -> None:
    model = WithConvolution(30, 16, 2).eval()
    report = marche_fx.explain(model, X)
    (step,) = report.steps
    (convolution,) = step.in_full
    assert (convolution.operator, convolution.path) == ("aten.convolution", "neighbours.convolution")
    assert convolution.flops == 2 * 2 * 30 * 16 * 16 * 3
    assert convolution.share == pytest.approx(convolution.flops / step.flops)
    assert "mixes a window of 3 tokens" in str(report)
    optimized = marche_fx.transform(model, strict=True, compile=False)
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match=r"aten\.convolution at neighbours\.convolution"):
        optimized(X)


def test_a_report_fits_120_columns() -> None:
    reports = [marche_fx.explain(Between(between).eval(), X) for between in (halve, neighbours)]
    for report in (marche_fx.report(used()), *reports):
        assert max(map(len, str(report).splitlines())) <= 120


def test_a_report_is_plain_values() -> None:
    found = marche_fx.report(used()).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert sorted(found) == list(found) == ["cuda_graphs", "heads", "model", "notes", "session", "steps", "warnings"]
    (step,) = found["steps"]
    assert sorted(step) == list(step)
    assert {"active", "cache_bytes", "fixed_flops", "in_full", "saving", "sites", "streams", "tokens"} <= step.keys()
    assert (step["streams"], step["active"], step["tokens"]) == ([30], [3], 30)
    assert step["saving"]["1"] == pytest.approx(1)
    assert step["flops"] / step["active_flops"] == pytest.approx(step["saving"]["0.1"])
    site = step["sites"][0]
    assert sorted(site) == list(site)
    assert (site["kind"], site["path"], site["claimed"], site["rows"]) == (
        "attention",
        "blocks.0.attention",
        True,
        [60],
    )
    (row,) = found["session"]["steps"]
    assert (row["step"], row["calls"], row["rows"]) == ("forward", 3, 92)
    unused = marche_fx.report(marche_fx.transform(Transformer(30, 16, 2).eval())).to_dict()
    assert (unused["session"], unused["steps"], len(unused["notes"])) == (None, [], 1)


def test_a_saved_text_is_cut_nowhere(tmp_path: Path) -> None:
    report = marche_fx.report(used())
    report.save(tmp_path / "step.txt")
    text = (tmp_path / "step.txt").read_text()
    assert "…" not in text
    assert str(report) in text
    assert report.session is not None
    assert report.session.text(steps=None) in text
    (graph,) = report.graphs
    nodes = [node for part in PARTS for node in computed(getattr(graph.split, part))]
    rows = [line for line in text.partition("forward, rewritten")[2].splitlines() if line.startswith("│")]
    assert [row.split()[3] for row in rows] == [node.name for node in nodes]
    assert all(row.split("│")[5].strip() == module_path(node) for row, node in zip(rows, nodes, strict=True))


def test_names_that_are_markup_are_printed_as_they_are(tmp_path: Path) -> None:
    report = marche_fx.explain(hostile(), X)
    printed = io.StringIO()
    Console(file=printed, width=1000, force_terminal=True).print(report)
    assert all(f"blocks.{name}.mlp.fc2" in printed.getvalue() for name in NAMES)
    assert "\x1b]8;" not in printed.getvalue(), "no link"
    report.save(tmp_path / "step.txt")
    text = (tmp_path / "step.txt").read_text()
    assert all(f"blocks.{name}.mlp.fc2" in text for name in NAMES)


def test_what_a_terminal_would_obey_is_written_out() -> None:
    table = Table("name")
    add_row(table, "\x1b[31mred")
    assert "\\x1b[31mred" in as_text(table)


def test_warnings_are_in_the_report_in_full() -> None:
    optimized = marche_fx.transform(
        Transformer(30, 16, 2).eval(), refresh=SelectiveRefresh(0.0, warmup=1), compile=False
    )
    x = X.clone()
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught, marche_fx.decoding(optimized):
        warnings.simplefilter("always")
        for step in range(3):
            x[:, step] += 1
            optimized(x).sum()
    (told,) = marche_fx.report(optimized).warnings
    assert told in [str(own.message) for own in caught]
    assert "was read as a whole" in told


def test_a_saved_json_is_the_report(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    report = marche_fx.report(used())
    report.save(path)
    found = json.loads(path.read_text())
    (graph,) = found.pop("graphs")
    assert found == report.to_dict()
    assert [own["name"] for own in graph["rewritten"]["epilogue"]][-1] == "output"
    names = {own["name"] for own in graph["operators"]}
    assert len(graph["operators"]) == len(names) == report.steps[0].nodes
    assert {own["value"] for own in graph["caches"]} == {own["name"] for own in graph["operators"] if own["cache"]}
    assert graph["active"] == [3]


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"\.html, \.txt, \.json or \.dot"):
        marche_fx.report(used()).save(tmp_path / "step.pdf")


def test_explain_prints_the_passes_that_ran_in_their_order() -> None:
    report = marche_fx.explain(Transformer(30, 16, 2).eval(), X)
    names = [own.name for own in report.steps[0].passes]
    assert names[:4] == ["capture", "pack", "attention", "axes"]
    assert names[-1] == "lower"
    text = " ".join(str(report).split())
    for own in report.steps[0].passes:
        assert f"{own.name} {own.seconds:.2f} s ({own.found})" in text


def test_explain_takes_the_known_step_that_the_arguments_are_of() -> None:
    mar = small_mar().eval()
    mask = torch.zeros(2, 9)
    mask[:, :4] = 1
    embedding = torch.randn(2, 16)
    encoder = marche_fx.explain(mar, X[:, :9, :4], mask, embedding)
    by_name = marche_fx.explain(mar, X[:, :9, :4], mask=mask, class_embedding=embedding)
    assert [own.steps[0].name for own in (encoder, by_name)] == ["forward_mae_encoder"] * 2
    with torch.no_grad():
        seen = mar.forward_mae_encoder(X[:, :9, :4], mask, embedding)
    assert marche_fx.explain(mar, seen, mask).steps[0].name == "forward_mae_decoder"


class Alike(nn.Module):
    """Both known steps take anything."""

    def forward_mae_encoder(self, *args: Tensor) -> Tensor:
        return args[0]

    forward_mae_decoder = forward_mae_encoder


def test_explain_says_which_steps_there_are_where_the_arguments_do_not_tell() -> None:
    with pytest.raises(ArgumentError, match=r"none accepts these arguments: forward_mae_encoder\(x.*Name one"):
        marche_fx.explain(small_mar().eval(), X)
    with pytest.raises(ArgumentError, match=r"Alike has 2, of which several accept .* step='forward_mae_encoder'"):
        marche_fx.explain(Alike().eval(), X)


class HeadsFirst(nn.Module):
    """Attention over ``[H, B, N, d]``."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 3, 0, 1, 4)
        attended = torch.einsum("hblt,hbtv->hblv", (torch.einsum("hblk,hbtk->hblt", q, k) / 2).softmax(-1), v)
        return x + self.out(attended.permute(1, 2, 0, 3).flatten(2))


@pytest.mark.parametrize("samples", [1, 2])
def test_heads_that_stand_before_samples_are_counted(samples: int) -> None:
    (step,) = marche_fx.explain(HeadsFirst().eval(), torch.randn(samples, 12, 16)).steps
    (site,) = step.sites
    assert site.size == "4 heads x 4"
    assert site.rows == (12 * samples,)
