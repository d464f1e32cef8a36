"""What a signal that knows the truth would gain: the attention of the step itself, how far tokens have moved, or both.

python examples/oracle_signal.py
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import marche_fx
from marche_fx import AttentionReceived, History, Refresh, RefreshPolicy, SelectiveRefresh
from marche_fx.evaluate import DriftSettings
from marche_fx.evaluate.draws import drift_draws
from marche_fx.models import MAR, load_fashion_mar
from marche_fx.models.drift import replay, teacher_forced_drift
from marche_fx.models.generation import Sampling, sample


class Watching(RefreshPolicy):
    """Computes every token, and keeps the attention that each received."""

    tolerance = 0.0
    signals = (AttentionReceived("all"),)

    def __init__(self) -> None:
        self.attention: list[Tensor] = []

    def choose(self, history: History) -> Refresh:
        last = history.latest(self.signals[0])
        if last is not None:
            self.attention.append(last)
        return Refresh(history.tokens)


class Hindsight(RefreshPolicy):
    """`SelectiveRefresh` with the truth, ``[B, N]`` of each step, in place of what it estimates.

    Args:
        attention: paid in the step, instead of that of earlier steps. values: exact rows ``[B, N, D]``, by which tokens
            have moved since they were last computed, instead of their age.
    """

    signals = (AttentionReceived(4),)

    def __init__(self, share: float, attention: Sequence[Tensor] | None, values: Sequence[Tensor] | None) -> None:
        self.share = share
        self.attention = attention
        self.values = values

    def choose(self, history: History) -> Refresh:
        smoothed = history.smoothed(self.signals[0])
        if history.step < 3 or smoothed is None:
            return Refresh(history.tokens)
        attention = smoothed if self.attention is None else self.attention[history.step]
        moved = history.age if self.values is None else self.moved(history, self.values)
        return Refresh(round(self.share * history.tokens), attention * moved)

    def moved(self, history: History, values: Sequence[Tensor]) -> Tensor:
        now, computed_in = values[history.step], (history.step - history.age.long()).clamp(min=0)
        before = torch.stack(list(values[: history.step + 1])).gather(
            0, computed_in[None, ..., None].expand(1, *now.shape)
        )
        return (now - before[0]).norm(dim=-1) / now.norm(dim=-1)


@torch.no_grad()
def main(
    mar: MAR | None = None,
    settings: DriftSettings | None = None,
    shares: Sequence[float] = (0.05, 0.1, 0.25),
) -> list[tuple[str, float, float, float]]:
    """Signal, share, drift and drift over that of the default."""
    mar, settings = mar or load_fashion_mar(), settings or DriftSettings(seed=7, drift_images=10)
    draws, steps, cfg = drift_draws(mar, settings, seeds=1), settings.steps, settings.cfg
    images = sample(mar, draws, Sampling(steps, cfg, settings.temperature))

    def drift_of(policy: RefreshPolicy) -> float:
        optimized = marche_fx.transform(mar, refresh=policy, compile=False, verify=False)
        found = teacher_forced_drift(mar, optimized, images, draws.orders, draws.labels, steps, cfg)
        return sum(found) / len(found)

    values = []
    for step in replay(mar, images, draws.orders, draws.labels, steps, cfg):
        z = mar.forward_mae_decoder(mar.forward_mae_encoder(step.tokens, step.mask, step.class_embedding), step.mask)
        # Class tokens return nothing; let them move as the image does on average.
        values.append(torch.cat([z.mean(1, keepdim=True).expand(-1, mar.buffer_size, -1), z], 1))
    watching = Watching()
    drift_of(watching)
    # The last step's comes to nobody's knowledge; that of the step before stands for it.
    attention = [*watching.attention, watching.attention[-1]]

    table = Table("signal", "share", "drift", "over the default's")
    rows = []
    for share in shares:
        policies = {
            "the default": SelectiveRefresh(share),
            "attention of the step": Hindsight(share, attention, None),
            "movement": Hindsight(share, None, values),
            "both": Hindsight(share, attention, values),
        }
        drifts = {name: drift_of(policy) for name, policy in policies.items()}
        rows += [(name, share, drift, drift / drifts["the default"]) for name, drift in drifts.items()]
    for name, share, drift, ratio in rows:
        table.add_row(name, f"{share:.0%}", f"{drift:.4f}", f"{ratio:.2f}")
    Console().print(table)
    return rows


if __name__ == "__main__":
    main()
