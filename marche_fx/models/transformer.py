"""Pre-norm transformer blocks with rotary positions and gated MLPs, shared by the bundled token models."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention over ``x [B, N, D]`` with rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))

    def look_nearby(self, frequencies: Tensor, sharpness: float = 4.5, quick: int = 6) -> None:
        """Let the first half of the heads begin by attending to the tokens 1, 2, .. before and after each one.

        A masked model has no other way to its neighbours, and without this takes long to find one. The biases of q and
        k are the same vector but for a turn, so rotary positions make q k largest where these undo the turn.
        """
        nn.init.zeros_(self.qkv.bias)
        q, k, _ = self.qkv.bias.data.view(3, self.heads, 2, -1).unbind()
        for head in range(self.heads // 2):
            offset = (head // 2 + 1) * (-1) ** head
            angles = offset * frequencies[:quick]
            q[head, 0, :quick], q[head, 1, :quick] = sharpness * angles.cos(), sharpness * angles.sin()
            k[head, 0, :quick] = sharpness


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the two halves of each head's channels ``[B, H, N, d]`` by the angles of the tokens' positions ``[N, d]``.

    ``sin`` carries the sign: negative for the first half.
    """
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class GatedMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Pre-norm transformer block, with dropout on what it adds to its input."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.mlp = GatedMlp(width, hidden)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), cos, sin))
        return x + self.dropout(self.mlp(self.norm2(x)))
