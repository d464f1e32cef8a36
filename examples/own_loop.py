"""A loop of your own: a masked language model that fills in its most certain tokens first.

python examples/own_loop.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import marche_fx

MASK = 0


class TextModel(nn.Module):
    """Any bidirectional transformer: ``ids [B, N] -> logits [B, N, V]``."""

    def __init__(self, vocabulary: int = 50, tokens: int = 64, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(1, tokens, width))
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.position
        heads = (f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return self.head(x + self.mlp(x))


@torch.inference_mode()
def fill_in(model: nn.Module, ids: Tensor, per_step: int) -> Tensor:
    """Replace every mask token, ``per_step`` a step, the most certain first."""
    while (ids == MASK).any():
        masked = ids[0] == MASK
        # Reading only these rows tells the step which tokens it must compute.
        logits = model(ids)[:, masked]
        certainty, best = logits[..., 1:].softmax(-1).max(-1)
        chosen = certainty[0].topk(min(per_step, int(masked.sum()))).indices
        ids = ids.clone()
        ids[0, masked.nonzero()[chosen, 0]] = best[0, chosen] + 1
    return ids


def main() -> None:
    torch.manual_seed(0)
    model = TextModel().eval()
    optimized = marche_fx.transform(model, compile=False)
    ids = torch.randint(1, 50, (1, 64))
    ids[:, 40:] = MASK
    with marche_fx.decoding(optimized):
        print(fill_in(optimized, ids, per_step=2))
    print(marche_fx.report(optimized).session)


if __name__ == "__main__":
    main()
