"""A refresh policy of your own: what it asks to be measured, and the tokens that it chooses.

python examples/custom_policy.py
"""

from __future__ import annotations

import torch

import marche_fx
from marche_fx.models import load_fashion_mar


class FastMovers(marche_fx.RefreshPolicy):
    """Recompute tokens whose values moved much when they last were, and those that were not for long."""

    signals = (marche_fx.ValueDrift(sites=1),)

    def choose(self, history: marche_fx.History) -> marche_fx.Refresh:
        speed = history.smoothed(self.signals[0])
        priority = history.age if speed is None else speed * history.age
        return marche_fx.Refresh(history.tokens // 10, priority)


def main(steps: int = 16) -> None:
    optimized = marche_fx.transform(load_fashion_mar(), refresh=FastMovers(), compile=False)
    with torch.inference_mode():
        optimized.sample_tokens(2, num_iter=steps, labels=torch.tensor([0, 9]))
    print(marche_fx.report(optimized).session)


if __name__ == "__main__":
    main()
