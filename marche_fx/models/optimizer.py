"""Muon for the matrices of the blocks, AdamW for the rest, as one optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class MuonWithAdamW:
    """Muon (Jordan et al. 2024) learns the matrices of ``model.blocks``; AdamW the embedding, gains and biases.

    Muon's updates are as large as AdamW's are (Liu et al. 2025, arXiv 2502.16982), so both take the same learning rate.
    """

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if name.startswith("blocks.") and p.ndim == 2]
        embedding = [p for name, p in named if not name.startswith("blocks.") and p.ndim == 2]
        vectors = [p for _, p in named if p.ndim < 2]
        self.muon = torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(
            [{"params": embedding, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            betas=(0.9, 0.95),
        )

    def step(self, learning_rate: float) -> None:
        for optimizer in (self.muon, self.adamw):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()

    def zero_grad(self) -> None:
        self.muon.zero_grad(set_to_none=True)
        self.adamw.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
