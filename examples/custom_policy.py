"""A refresh policy of your own: any object with `tolerance`, `sites` and `choose`.

python examples/custom_policy.py
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import marche_fx
from marche_fx.models import load_fashion_mar


@dataclass(frozen=True)
class OldestFirst:
    """Recompute the tokens that were not recomputed for longest."""

    fraction: float = 0.1
    tolerance: float = 0.3
    sites: int = 0

    def choose(self, history: marche_fx.History) -> marche_fx.Refresh:
        return marche_fx.Refresh(round(self.fraction * history.tokens), history.age)


def main(steps: int = 16) -> None:
    optimized = marche_fx.transform(load_fashion_mar(), refresh=OldestFirst(), compile=False)
    with torch.inference_mode():
        optimized.sample_tokens(2, num_iter=steps, labels=torch.tensor([0, 9]))
    print(marche_fx.report(optimized).session)


if __name__ == "__main__":
    main()
