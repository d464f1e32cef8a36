"""MaskGIT's loop on garments of 14x14 codes: decoded exactly and with cached tokens, from the same noise.

python examples/maskgit_fashion.py [PICTURE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.image
import torch
from torch import Tensor

import marche_fx
from marche_fx.models import CLASSES, load_garment_tokens
from marche_fx.models.tokens import Decoding, MaskGIT, generate_codes
from marche_fx.reporting.session_report import SessionReport


def main(out: Path = Path("runs/maskgit_fashion.png"), steps: int = 32) -> tuple[Tensor, SessionReport]:
    """The codes ``[10, N]`` decoded with cached tokens, and what was computed for them."""
    garments = load_garment_tokens()
    # MaskGIT looks at every masked code in every step; with a bound only those near to new ones are computed again.
    policy = marche_fx.NeighbourRefresh(0.05, queried=0.1)
    optimized = marche_fx.transform(garments.maskgit, refresh=policy, compile=False)

    def decode(model: MaskGIT) -> Tensor:
        labels, noise = torch.arange(len(CLASSES)), torch.Generator().manual_seed(0)
        return generate_codes(model, labels, Decoding(steps), generator=noise)

    exact = decode(garments.maskgit)
    with marche_fx.decoding(optimized):
        cached = decode(optimized)

    # [2, 10, 28, 28]: exact ones above, cached ones below.
    images = garments.tokenizer.decode(torch.cat([exact, cached])).unflatten(0, (2, -1))[:, :, 0]
    out.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(out, images.transpose(1, 2).flatten(2).flatten(0, 1).numpy(), cmap="gray_r")
    session = marche_fx.report(optimized).session
    assert session is not None
    print(f"{(exact == cached).float().mean():.1%} of the codes are the same; {out} shows both")
    print(f"{session.rows_ratio:.1%} of the rows computed, {session.flops_ratio:.3f} of the FLOPs")
    return cached, session


if __name__ == "__main__":
    main(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
