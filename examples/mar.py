"""Generate garments with the bundled MAR, several times faster, and see what was computed.

python examples/mar.py
"""

from __future__ import annotations

import torch

import marche_fx
from marche_fx.models import CLASSES, load_fashion_mar


def main(steps: int = 32, samples: int = 4) -> None:
    model = load_fashion_mar()
    optimized = marche_fx.transform(model, refresh=marche_fx.SelectiveRefresh(fraction=0.1), compile=False)
    labels = torch.full((samples,), CLASSES.index("Sandal"))
    with torch.inference_mode():
        # The model's own loop, unchanged: each call is a session.
        images = optimized.sample_tokens(samples, num_iter=steps, cfg=2.0, labels=labels)
    print(images.shape)
    print(marche_fx.report(optimized))


if __name__ == "__main__":
    main()
