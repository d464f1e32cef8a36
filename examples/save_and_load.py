"""What one process captured and compiled serves the next: how long each takes to its second decoding step.

python examples/save_and_load.py [fashion|base|large]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

import marche_fx
from marche_fx.models.presets import SIZES


def run_once(size: str, path: Path) -> None:
    """Decode two steps with a model that has what is in the file; write it if it was not there."""
    torch.manual_seed(0)
    model = SIZES[size]().eval()
    begin = time.perf_counter()
    optimized = marche_fx.transform(model, verify=False)
    with warnings.catch_warnings():
        # The first process finds no file.
        warnings.simplefilter("ignore")
        loaded = marche_fx.load_captures(optimized, path)
    with torch.inference_mode(), marche_fx.decoding(optimized):
        for masked in (model.seq_len // 2, model.seq_len // 2 - 4):
            mask = (torch.arange(model.seq_len) < masked).float()[None]
            tokens, labels = torch.zeros(1, model.seq_len, model.token_embed_dim), model.class_emb.weight[:1]
            x = optimized.forward_mae_encoder(tokens, mask, labels)
            optimized.forward_mae_decoder(x, mask)[:, : masked // 8].sum()
    print(f"{size}, {'loaded' if loaded else 'cold'}: {time.perf_counter() - begin:.1f} s")
    if not loaded:
        marche_fx.save_captures(optimized, path)


def main(size: str = "fashion") -> None:
    with tempfile.TemporaryDirectory() as folder:
        # As on a machine on which nothing was compiled before.
        where = os.environ | {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/compiler"}
        for _ in range(2):
            subprocess.run([sys.executable, __file__, size, f"{folder}/steps"], env=where, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run_once(sys.argv[1], Path(sys.argv[2]))
    else:
        main(*sys.argv[1:])
