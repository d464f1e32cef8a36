"""MAR, masked autoregressive image generation without vector quantisation (Li et al. 2024, arXiv 2406.11838).

Written from the paper; module, parameter and method names are those of the official checkpoints, so these load. The
model knows nothing of marche_fx: it is written as its user would write it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from ..orders import checked_counts
from .head import DiffLoss
from .sampling import check_sampling

layer_norm = partial(nn.LayerNorm, eps=1e-6)


class Attention(nn.Module):
    """Multi-head self-attention over ``x [B, N, D]``."""

    def __init__(self, dim: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attn_drop = attn_drop
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        dropped = self.attn_drop if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(batch, tokens, dim)))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        norm_layer: Callable[[int], nn.Module],
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, attn_drop, proj_drop)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def mask_by_order(mask_len: int, order: Tensor, bsz: int, seq_len: int) -> Tensor:
    """``[bsz, seq_len]``, one at the first ``mask_len`` positions of each sample's ``order``, zero elsewhere."""
    masking = torch.zeros(bsz, seq_len, device=order.device)
    return masking.scatter(-1, order[:, :mask_len], 1.0)


def mask_length(step: int, num_iter: int, seq_len: int, masked: int) -> int:
    """Tokens still masked after decoding step ``step``, counted from 0, of which ``masked`` are before it."""
    return max(1, min(masked - 1, math.floor(seq_len * math.cos(math.pi / 2 * (step + 1) / num_iter))))


class MAR(nn.Module):
    """Masked autoencoder over continuous tokens with a diffusion head.

    An image ``[B, C, img_size / vae_stride, ...]`` of latents (or pixels, with ``vae_stride=1``) is cut into N tokens
    of ``vae_embed_dim * patch_size ** 2`` channels. The encoder sees ``buffer_size`` class tokens and the unmasked
    tokens, the decoder all of them, and the head draws the masked ones from the decoder's vectors. Where the values of
    a token are known to lie in ``-token_limit .. token_limit``, as pixels do, it draws no others.
    """

    def __init__(
        self,
        img_size: int = 256,
        vae_stride: int = 16,
        patch_size: int = 1,
        encoder_embed_dim: int = 1024,
        encoder_depth: int = 16,
        encoder_num_heads: int = 16,
        decoder_embed_dim: int = 1024,
        decoder_depth: int = 16,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_layer: Callable[[int], nn.Module] = layer_norm,
        vae_embed_dim: int = 16,
        mask_ratio_min: float = 0.7,
        label_drop_prob: float = 0.1,
        class_num: int = 1000,
        attn_dropout: float = 0.1,
        proj_dropout: float = 0.1,
        buffer_size: int = 64,
        diffloss_d: int = 3,
        diffloss_w: int = 1024,
        num_sampling_steps: int | str = "100",
        diffusion_batch_mul: int = 4,
        diffusion_token_share: float = 1.0,
        token_limit: float | None = None,
    ) -> None:
        super().__init__()
        self.vae_embed_dim = vae_embed_dim
        self.patch_size = patch_size
        self.seq_h = self.seq_w = img_size // vae_stride // patch_size
        self.seq_len = self.seq_h * self.seq_w
        self.token_embed_dim = vae_embed_dim * patch_size**2
        self.mask_ratio_min = mask_ratio_min
        self.num_classes = class_num
        self.label_drop_prob = label_drop_prob
        self.buffer_size = buffer_size
        self.diffusion_batch_mul = diffusion_batch_mul
        self.diffusion_token_share = diffusion_token_share

        self.class_emb = nn.Embedding(class_num, encoder_embed_dim)
        self.fake_latent = nn.Parameter(torch.zeros(1, encoder_embed_dim))

        def blocks(depth: int, dim: int, heads: int) -> nn.ModuleList:
            return nn.ModuleList(
                Block(dim, heads, mlp_ratio, norm_layer, proj_dropout, attn_dropout) for _ in range(depth)
            )

        self.z_proj = nn.Linear(self.token_embed_dim, encoder_embed_dim)
        self.z_proj_ln = nn.LayerNorm(encoder_embed_dim, eps=1e-6)
        self.encoder_pos_embed_learned = nn.Parameter(torch.zeros(1, self.seq_len + buffer_size, encoder_embed_dim))
        self.encoder_blocks = blocks(encoder_depth, encoder_embed_dim, encoder_num_heads)
        self.encoder_norm = norm_layer(encoder_embed_dim)

        self.decoder_embed = nn.Linear(encoder_embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(1, self.seq_len + buffer_size, decoder_embed_dim))
        self.decoder_blocks = blocks(decoder_depth, decoder_embed_dim, decoder_num_heads)
        self.decoder_norm = norm_layer(decoder_embed_dim)
        self.diffusion_pos_embed_learned = nn.Parameter(torch.zeros(1, self.seq_len, decoder_embed_dim))

        self.initialize_weights()
        self.diffloss = DiffLoss(
            self.token_embed_dim, decoder_embed_dim, diffloss_d, diffloss_w, num_sampling_steps, token_limit
        )

    def initialize_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for parameter in (
            self.class_emb.weight,
            self.fake_latent,
            self.mask_token,
            self.encoder_pos_embed_learned,
            self.decoder_pos_embed_learned,
            self.diffusion_pos_embed_learned,
        ):
            nn.init.normal_(parameter, std=0.02)

    def patchify(self, x: Tensor) -> Tensor:
        """Image ``[B, c, H, W]`` to tokens ``[B, N, c * p * p]``."""
        batch, channels, height, width = x.shape
        p = self.patch_size
        x = x.reshape(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(batch, height // p * (width // p), channels * p * p)

    def unpatchify(self, x: Tensor) -> Tensor:
        """Tokens ``[B, N, c * p * p]`` to image ``[B, c, H, W]``."""
        p, c = self.patch_size, self.vae_embed_dim
        x = x.reshape(len(x), self.seq_h, self.seq_w, c, p, p).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(len(x), c, self.seq_h * p, self.seq_w * p)

    def sample_orders(self, bsz: int, generator: torch.Generator | None = None) -> Tensor:
        """A random order of the tokens for each sample: ``[bsz, N]`` int64. The last of it is decoded first."""
        device = self.mask_token.device
        return torch.rand(bsz, self.seq_len, device=device, generator=generator).argsort(-1)

    def random_masking(self, x: Tensor, orders: Tensor) -> Tensor:
        """A mask ``[B, N]`` at a ratio drawn once per batch from the normal(1, 0.25) cut to ``mask_ratio_min .. 1``."""
        ratio = nn.init.trunc_normal_(torch.empty(()), mean=1.0, std=0.25, a=self.mask_ratio_min, b=1.0)
        return mask_by_order(math.ceil(self.seq_len * float(ratio)), orders, *x.shape[:2])

    def forward_mae_encoder(self, x: Tensor, mask: Tensor, class_embedding: Tensor) -> Tensor:
        """Encode class tokens and unmasked tokens.

        Args:
            x: ``[B, N, C]`` tokens. mask: ``[B, N]``, one where masked, equally many in every sample.
            class_embedding: ``[B, D]``.

        Returns:
            ``[B, buffer + visible, D]``.
        """
        x = self.z_proj(x)
        bsz, _, embed_dim = x.shape

        x = torch.cat([torch.zeros(bsz, self.buffer_size, embed_dim, device=x.device, dtype=x.dtype), x], dim=1)
        mask_with_buffer = torch.cat([torch.zeros(bsz, self.buffer_size, device=x.device), mask], dim=1)

        if self.training:
            drop = torch.rand(bsz, 1, device=x.device) < self.label_drop_prob
            class_embedding = torch.where(drop, self.fake_latent, class_embedding)
        x[:, : self.buffer_size] = class_embedding.unsqueeze(1)

        x = self.z_proj_ln(x + self.encoder_pos_embed_learned)
        x = x[(1 - mask_with_buffer).nonzero(as_tuple=True)].reshape(bsz, -1, embed_dim)
        for block in self.encoder_blocks:
            x = block(x)
        return self.encoder_norm(x)

    def forward_mae_decoder(self, x: Tensor, mask: Tensor) -> Tensor:
        """Decode all tokens.

        Args:
            x: ``[B, buffer + visible, D]`` from the encoder. mask: ``[B, N]``, one where masked.

        Returns:
            ``z`` ``[B, N, D]``, what the head is conditioned on.
        """
        x = self.decoder_embed(x)
        bsz = len(x)
        mask_with_buffer = torch.cat([torch.zeros(bsz, self.buffer_size, device=x.device), mask], dim=1)

        padded = self.mask_token.repeat(bsz, mask_with_buffer.shape[1], 1).to(x.dtype)
        padded[(1 - mask_with_buffer).nonzero(as_tuple=True)] = x.reshape(-1, x.shape[2])
        x = padded + self.decoder_pos_embed_learned
        for block in self.decoder_blocks:
            x = block(x)
        x = self.decoder_norm(x)
        return x[:, self.buffer_size :] + self.diffusion_pos_embed_learned

    def forward_loss(self, z: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Diffusion loss of the masked tokens, each with ``diffusion_batch_mul`` draws of noise.

        Of the masked tokens a random ``diffusion_token_share`` is looked at in each step: the head costs more than the
        transformer, and tokens of one image teach it much the same.
        """
        chosen = mask.bool() & (torch.rand_like(mask) < self.diffusion_token_share)
        draws = self.diffusion_batch_mul
        return self.diffloss(target=target[chosen].repeat(draws, 1), z=z[chosen].repeat(draws, 1))

    def forward(self, imgs: Tensor, labels: Tensor) -> Tensor:
        """Training loss of images ``[B, c, H, W]`` with labels ``[B]``: a scalar."""
        x = self.patchify(imgs)
        mask = self.random_masking(x, self.sample_orders(len(x)))
        z = self.forward_mae_decoder(self.forward_mae_encoder(x, mask, self.class_emb(labels)), mask)
        return self.forward_loss(z, x, mask)

    def sample_tokens(
        self,
        bsz: int,
        num_iter: int = 64,
        cfg: float = 1.0,
        cfg_schedule: str = "linear",
        labels: Tensor | None = None,
        temperature: float = 1.0,
        progress: bool = False,
        *,
        orders: Tensor | None = None,
        counts: Sequence[int] | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Generate images ``[bsz, c, H, W]``.

        Args:
            num_iter: decoding steps. cfg: guidance scale, 1 for none; with the ``"linear"`` schedule it grows from 1 as
                tokens are decoded, with ``"constant"`` it does not.
            labels: ``[bsz]`` int64; the null class when omitted.
            orders: ``[bsz, N]``, the order of the tokens, that of the last one decoded standing first.
            counts: ``num_iter`` numbers of tokens, decoded in each step; along a cosine when omitted.
            noise: ``[bsz, N, S, C]``, every draw of the head's S denoising steps, so that a sample does not depend on
                what shares its batch.
            generator: of the orders and the noise where they are omitted; else the global seed.

        Raises:
            ArgumentError: an argument is of the wrong type, shape or range.
        """
        check_sampling(
            bsz=bsz,
            num_iter=num_iter,
            cfg=cfg,
            cfg_schedule=cfg_schedule,
            temperature=temperature,
            labels=labels,
            classes=self.class_emb.num_embeddings,
            given={
                "orders": (orders, (bsz, self.seq_len)),
                "noise": (noise, (bsz, self.seq_len, None, self.token_embed_dim)),
            },
            generator=generator,
        )
        counts = None if counts is None else checked_counts(counts, self.seq_len, num_iter)
        device, dtype = self.mask_token.device, self.mask_token.dtype
        mask = torch.ones(bsz, self.seq_len, device=device)
        tokens = torch.zeros(bsz, self.seq_len, self.token_embed_dim, device=device, dtype=dtype)
        orders = self.sample_orders(bsz, generator) if orders is None else orders
        masked = self.seq_len

        for step in track(range(num_iter), "decoding", disable=not progress):
            cur_tokens = tokens.clone()
            class_embedding = self.fake_latent.repeat(bsz, 1) if labels is None else self.class_emb(labels)
            if cfg != 1.0:
                tokens = torch.cat([tokens, tokens])
                class_embedding = torch.cat([class_embedding, self.fake_latent.repeat(bsz, 1)])
                mask = torch.cat([mask, mask])

            x = self.forward_mae_encoder(tokens, mask, class_embedding)
            z = self.forward_mae_decoder(x, mask)

            last = step == num_iter - 1
            if counts is None:
                mask_len = mask_length(step, num_iter, self.seq_len, masked)
            else:
                mask_len = max(1, masked - counts[step])
            mask_next = mask_by_order(mask_len, orders, bsz, self.seq_len)
            mask_to_pred = mask[:bsz].bool() if last else torch.logical_xor(mask[:bsz].bool(), mask_next.bool())
            mask, masked = mask_next, mask_len

            predicted = mask_to_pred.nonzero(as_tuple=True)
            if cfg != 1.0:
                mask_to_pred = torch.cat([mask_to_pred, mask_to_pred])
            z = z[mask_to_pred.nonzero(as_tuple=True)]
            cfg_iter = cfg
            if cfg_schedule == "linear":
                cfg_iter = 1 + (cfg - 1) * (self.seq_len - mask_len) / self.seq_len
            step_noise = None if noise is None else noise[predicted].transpose(0, 1)
            drawn = self.diffloss.sample(z, temperature, cfg_iter, noise=step_noise, generator=generator)

            cur_tokens[predicted] = drawn[: len(predicted[0])].to(dtype)
            tokens = cur_tokens
        return self.unpatchify(tokens)
