"""What the report says of each site: module, line, rows, flops and caches, at any fraction of active tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError
from tests.networks import FusedAttention, Mlp, Transformer
from tests.reporting.used import X, used


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
