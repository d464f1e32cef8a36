"""Operators that mix tokens without being attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIXERS = (
    "convolution",
    "depthwise",
    "mean",
    "squeeze and excite",
    "cumulative",
    "linear",
    "shift",
    "roll",
    "fourier",
    "filter",
    "instance norm",
    "max",
    "softmax",
    "sorted",
    "flip",
)


class Mixer(nn.Module):
    """Mixes tokens ``[B, N, D]`` without being attention."""

    def __init__(self, kind: str, tokens: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "convolution":
            self.convolution = nn.Conv1d(width, width, 3, padding=1)
        elif kind == "depthwise":
            self.convolution = nn.Conv1d(width, width, 3, padding="same", groups=width)
        elif kind == "squeeze and excite":
            self.squeeze, self.excite = nn.Linear(width, 2), nn.Linear(2, width)
        elif kind == "linear":
            self.mix = nn.Linear(tokens, tokens)
        elif kind == "filter":
            self.weight = nn.Parameter(torch.randn(tokens // 2 + 1, width, 2))
        elif kind == "instance norm":
            self.norm = nn.InstanceNorm1d(width, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        if self.kind in ("convolution", "depthwise"):
            return x + self.convolution(x.transpose(1, 2)).transpose(1, 2)
        if self.kind == "mean":
            return x + x.mean(dim=1, keepdim=True)
        if self.kind == "max":
            return x - x.amax(dim=1).unsqueeze(1).expand_as(x)
        if self.kind == "squeeze and excite":
            return x * self.excite(self.squeeze(x.mean(1)).relu()).sigmoid()[:, None]
        if self.kind == "cumulative":
            return x + x.cumsum(dim=1) / torch.arange(1, tokens + 1, device=x.device)[:, None]
        if self.kind == "linear":
            return x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        if self.kind == "shift":
            previous = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
            return torch.lerp(x, previous, 0.3)
        if self.kind == "roll":
            return x + torch.roll(x, 1, dims=1)
        if self.kind == "fourier":
            return x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=1).real
        if self.kind == "filter":
            spectrum = torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(self.weight)
            return x + torch.fft.irfft(spectrum, n=tokens, dim=1, norm="ortho")
        if self.kind == "instance norm":
            return self.norm(x.transpose(1, 2)).transpose(1, 2)
        if self.kind == "softmax":
            return x + (x[..., :1].softmax(dim=1) * x).sum(dim=1, keepdim=True)
        if self.kind == "sorted":
            return x + x.sort(dim=1).values
        return x + x.flip(1)
