import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from marche_fx.errors import ArgumentError
from marche_fx.models.mar import MAR, mask_by_order
from marche_fx.orders import cosine_counts, linear_counts

from .tiny import noise_for, tiny_images, tiny_mar

LABELS = torch.tensor([0, 1, 2, 1])
ENTRY_POINTS = ("forward_mae_encoder", "forward_mae_decoder")


def block_names(half: str, depth: int) -> set[str]:
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    return {f"{half}_blocks.{i}.{part}.{kind}" for i in range(depth) for part in parts for kind in ("weight", "bias")}


def record_calls(owner: nn.Module, method: str) -> list[tuple[Any, ...]]:
    """The arguments of every later call of a method, which goes on working."""
    calls: list[tuple[Any, ...]] = []
    original: Callable[..., Any] = getattr(owner, method)

    def recording(*args: Any, **kwargs: Any) -> Any:
        calls.append((*args, *kwargs.values()))
        return original(*args, **kwargs)

    setattr(owner, method, recording)
    return calls


def some_mask(masked: int, bsz: int = 2) -> Tensor:
    """``[bsz, 16]``, another set of tokens masked in every sample."""
    return mask_by_order(masked, torch.rand(bsz, 16, generator=torch.Generator().manual_seed(0)).argsort(-1), bsz, 16)


# Names, shapes and the way of an image to tokens and back


def test_the_state_dict_has_the_official_names() -> None:
    tables = {f"{half}_pos_embed_learned" for half in ("encoder", "decoder", "diffusion")}
    linears = ("z_proj", "z_proj_ln", "encoder_norm", "decoder_embed", "decoder_norm")
    frame = {f"{name}.{kind}" for name in linears for kind in ("weight", "bias")}
    names = set(tiny_mar().state_dict())
    head = {name for name in names if name.startswith("diffloss.net.")}
    transformer = block_names("encoder", 2) | block_names("decoder", 2)
    assert names - head == {"class_emb.weight", "fake_latent", "mask_token"} | tables | frame | transformer
    assert len(head) == 2 * (6 + 4 * 2)


@given(patch=st.integers(1, 3), tokens=st.integers(1, 4), channels=st.integers(1, 3), bsz=st.integers(1, 3))
def test_unpatchify_inverts_patchify(patch: int, tokens: int, channels: int, bsz: int) -> None:
    model = tiny_mar(img_size=patch * tokens, patch_size=patch, vae_embed_dim=channels)
    image = torch.randn(bsz, channels, patch * tokens, patch * tokens)
    assert torch.equal(model.unpatchify(model.patchify(image)), image)


def test_a_token_is_a_patch_of_pixels_in_reading_order() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    tokens = tiny_mar().patchify(image)[0]
    assert tokens[0].tolist() == [0, 1, 8, 9]
    assert tokens[5].tolist() == image[0, 0, 2:4, 2:4].flatten().tolist()


# The encoder and the decoder


def test_the_encoder_computes_class_tokens_and_visible_tokens_only() -> None:
    model = tiny_mar()
    rows = []
    model.encoder_blocks[0].register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    encoded = model.forward_mae_encoder(torch.randn(2, 16, 4).double(), some_mask(11), model.class_emb(LABELS[:2]))
    assert rows == [2 + 16 - 11]
    assert encoded.shape == (2, 2 + 16 - 11, 16)


def test_masked_tokens_do_not_reach_the_encoder_and_visible_ones_do() -> None:
    model, mask = tiny_mar(), some_mask(11)
    x, class_embedding = torch.randn(2, 16, 4).double(), model.class_emb(LABELS[:2])
    encoded = model.forward_mae_encoder(x, mask, class_embedding)
    hidden = x.masked_fill(mask.bool()[..., None], 100.0)
    assert torch.equal(model.forward_mae_encoder(hidden, mask, class_embedding), encoded)
    shown = x.masked_fill(~mask.bool()[..., None], 100.0)
    assert not torch.allclose(model.forward_mae_encoder(shown, mask, class_embedding), encoded)


def test_without_blocks_the_encoder_keeps_visible_tokens_in_order() -> None:
    model, mask, x = tiny_mar(encoder_depth=0), some_mask(11), torch.randn(2, 16, 4).double()
    class_embedding = model.class_emb(LABELS[:2])
    encoded = model.forward_mae_encoder(x, mask, class_embedding)
    for sample in range(2):
        inputs = [class_embedding[sample]] * 2 + list(model.z_proj(x[sample]))
        kept = [0, 1] + [2 + token for token in range(16) if mask[sample, token] == 0]
        for row, place in enumerate(kept):
            entering = inputs[place] + model.encoder_pos_embed_learned[0, place]
            torch.testing.assert_close(encoded[sample, row], model.encoder_norm(model.z_proj_ln(entering)))


def test_without_blocks_the_decoder_puts_visible_tokens_back_and_mask_tokens_elsewhere() -> None:
    model, mask = tiny_mar(decoder_depth=0), some_mask(11)
    encoded = torch.randn(2, 2 + 5, 16).double()
    z = model.forward_mae_decoder(encoded, mask)
    for sample in range(2):
        visible = iter(encoded[sample, 2:])
        for token in range(16):
            content = model.mask_token[0, 0] if mask[sample, token] else model.decoder_embed(next(visible))
            expected = model.decoder_norm(content + model.decoder_pos_embed_learned[0, 2 + token])
            torch.testing.assert_close(z[sample, token], expected + model.diffusion_pos_embed_learned[0, token])


def test_every_token_attends_to_every_visible_token() -> None:
    model, mask = tiny_mar(), some_mask(11)
    x, class_embedding = torch.randn(2, 16, 4).double(), model.class_emb(LABELS[:2]).detach()

    def z_of(x: Tensor) -> Tensor:
        return model.forward_mae_decoder(model.forward_mae_encoder(x, mask, class_embedding), mask)

    moved = x.clone()
    moved[0, int((mask[0] == 0).nonzero()[0])] += 1
    change = (z_of(moved) - z_of(x)).abs().amax(-1)
    assert (change[0] > 1e-9).all()
    assert (change[1] == 0).all()


def test_attention_is_softmax_of_scaled_products_in_each_head() -> None:
    attention = tiny_mar().encoder_blocks[0].get_submodule("attn")
    x = torch.randn(1, 5, 16).double()
    qkv = nn.functional.linear(x[0], attention.get_parameter("qkv.weight"), attention.get_parameter("qkv.bias"))
    heads = []
    for head in range(2):
        q, k, v = (qkv[:, part * 16 + head * 8 : part * 16 + head * 8 + 8] for part in range(3))
        heads.append((q @ k.T / math.sqrt(8)).softmax(-1) @ v)
    torch.testing.assert_close(attention(x), attention.get_submodule("proj")(torch.cat(heads, -1))[None])


# Training


def test_masks_cover_the_truncated_normal_share_of_the_tokens() -> None:
    model = tiny_mar(img_size=64)  # 1024 tokens, so that rounding up hardly shows
    torch.manual_seed(0)
    tokens, orders = torch.zeros(1, 1024, 4), model.sample_orders(1)
    shares = [model.random_masking(tokens, orders).mean().item() for _ in range(1500)]
    assert min(shares) >= 0.7
    expected = stats.truncnorm((0.7 - 1) / 0.25, 0, loc=1, scale=0.25)
    assert stats.kstest(shares, expected.cdf).statistic < 0.05


@given(masked=st.integers(0, 16))
def test_a_mask_is_the_beginning_of_each_samples_order(masked: int) -> None:
    orders = tiny_mar().sample_orders(3, torch.Generator().manual_seed(masked))
    mask = mask_by_order(masked, orders, 3, 16)
    for sample in range(3):
        assert mask[sample].nonzero().flatten().tolist() == sorted(orders[sample, :masked].tolist())


@pytest.mark.parametrize(("drop", "training", "matters"), [(1.0, True, False), (0.0, True, True), (1.0, False, True)])
def test_labels_are_dropped_in_training_at_the_chosen_rate(drop: float, training: bool, matters: bool) -> None:
    model = tiny_mar(label_drop_prob=drop).train(training)
    images = tiny_images(2).images.double() / 255

    def loss(label: int) -> float:
        torch.manual_seed(0)
        return model(images, torch.full((2,), label)).item()

    assert (loss(0) != loss(1)) == matters


@pytest.mark.parametrize(("draws", "share"), [(1, 1.0), (4, 1.0), (2, 0.5)])
def test_the_loss_looks_at_a_share_of_the_masked_tokens_with_several_draws_each(draws: int, share: float) -> None:
    model = tiny_mar(img_size=64, diffusion_batch_mul=draws, diffusion_token_share=share)
    seen = record_calls(model.diffloss, "forward")
    mask = mask_by_order(800, model.sample_orders(2), 2, 1024)
    target, z = torch.randn(2, 1024, 4).double(), torch.randn(2, 1024, 16).double()
    torch.manual_seed(0)
    assert model.forward_loss(z, target, mask).isfinite()
    rows, conditions = seen[0][0], seen[0][1]
    assert len(rows) / (draws * 1600) == pytest.approx(share, abs=0.05)
    assert torch.equal(rows[: len(rows) // draws].repeat(draws, 1), rows)
    masked = mask.bool()
    assert torch.isin(rows[:, 0], target[masked][:, 0]).all()
    assert torch.isin(conditions[:, 0], z[masked][:, 0]).all()


def test_the_loss_has_a_gradient_for_every_parameter() -> None:
    model = tiny_mar(label_drop_prob=0.5).train()
    torch.manual_seed(0)
    model(tiny_images(8).images.double() / 255, tiny_images(8).labels).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


# Decoding


def masked_before_each_step(model: MAR, bsz: int, num_iter: int, cfg: float) -> list[Tensor]:
    calls = record_calls(model, "forward_mae_encoder")
    orders, noise = noise_for(model, bsz)
    model.sample_tokens(bsz, num_iter, cfg, labels=LABELS[:bsz], orders=orders, noise=noise)
    return [mask for _, mask, _ in calls]


@given(num_iter=st.integers(1, 20))
@torch.no_grad()
def test_the_mask_shrinks_along_a_cosine_and_along_the_order(num_iter: int) -> None:
    model = tiny_mar()
    masks = masked_before_each_step(model, 2, num_iter, 1.0)
    expected = [16]
    for step in range(1, num_iter):
        expected.append(max(1, min(expected[-1] - 1, math.floor(16 * math.cos(math.pi / 2 * step / num_iter)))))
    assert [mask.sum(-1).tolist() for mask in masks] == [[masked, masked] for masked in expected]
    orders, _ = noise_for(model, 2)
    for mask, masked in zip(masks, expected, strict=True):
        assert torch.equal(mask, mask_by_order(masked, orders, 2, 16))


@pytest.mark.parametrize("num_iter", [1, 3, 16, 24])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
@torch.no_grad()
def test_every_token_is_drawn_exactly_once(num_iter: int, cfg: float) -> None:
    model = tiny_mar()
    drawn = record_calls(model.diffloss, "sample")
    images = model.sample_tokens(2, num_iter, cfg, labels=LABELS[:2])
    assert len(drawn) == num_iter
    assert sum(len(call[0]) for call in drawn) == 2 * 16 * (1 if cfg == 1 else 2)
    assert images.shape == (2, 1, 8, 8)
    assert (images != 0).all()


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@torch.no_grad()
def test_tokens_are_decoded_by_the_counts_that_are_given(cfg: float) -> None:
    model, counts = tiny_mar(), [5, 1, 7, 3]
    calls = record_calls(model, "forward_mae_encoder")
    orders, noise = noise_for(model, 2)
    model.sample_tokens(2, 4, cfg, labels=LABELS[:2], orders=orders, counts=counts, noise=noise)
    for (_, mask, _), masked in zip(calls, [16, 11, 10, 3], strict=True):
        assert torch.equal(mask[:2], mask_by_order(masked, orders, 2, 16))


@torch.no_grad()
def test_counts_along_a_cosine_are_what_happens_without() -> None:
    model = tiny_mar()
    orders, noise = noise_for(model, 2)
    given: dict[str, Any] = {"labels": LABELS[:2], "orders": orders, "noise": noise}
    expected = model.sample_tokens(2, 6, 2.0, **given)
    assert torch.equal(model.sample_tokens(2, 6, 2.0, counts=cosine_counts(16, 6), **given), expected)
    assert not torch.equal(model.sample_tokens(2, 6, 2.0, counts=linear_counts(16, 6), **given), expected)


@pytest.mark.parametrize("counts", [[16], [8, 8, 0], [8, 4, 3]])
def test_counts_that_do_not_decode_every_token_are_refused(counts: list[int]) -> None:
    with pytest.raises(ArgumentError, match="3 numbers of at least 1 that add up to the 16 tokens"):
        tiny_mar().sample_tokens(1, 3, counts=counts)


@torch.no_grad()
def test_later_steps_see_the_tokens_of_earlier_ones() -> None:
    model = tiny_mar()
    calls = record_calls(model, "forward_mae_encoder")
    images = model.sample_tokens(2, 4, labels=LABELS[:2])
    tokens, mask, _ = calls[-1]
    visible = mask == 0
    assert torch.equal(tokens[visible], model.patchify(images)[visible])
    assert not tokens[~visible].any()


@pytest.mark.parametrize(("cfg", "batch"), [(1.0, 2), (3.0, 4)])
@torch.no_grad()
def test_guidance_doubles_the_batch_with_the_null_class(cfg: float, batch: int) -> None:
    model = tiny_mar()
    calls = record_calls(model, "forward_mae_encoder")
    model.sample_tokens(2, 3, cfg, labels=LABELS[:2])
    for tokens, mask, class_embedding in calls:
        assert len(tokens) == len(mask) == len(class_embedding) == batch
        assert torch.equal(class_embedding[:2], model.class_emb(LABELS[:2]))
        assert torch.equal(class_embedding[2:], model.fake_latent.repeat(batch - 2, 1))


@torch.no_grad()
def test_guidance_without_labels_changes_nothing() -> None:
    model = tiny_mar()
    orders, noise = noise_for(model, 2)
    guided = model.sample_tokens(2, 4, 3.0, orders=orders, noise=noise)
    torch.testing.assert_close(guided, model.sample_tokens(2, 4, orders=orders, noise=noise))
    labelled = model.sample_tokens(2, 4, 3.0, labels=LABELS[:2], orders=orders, noise=noise)
    assert not torch.allclose(labelled, guided)


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@torch.no_grad()
def test_guidance_follows_its_schedule_and_temperature_is_constant(schedule: str) -> None:
    model = tiny_mar()
    calls = record_calls(model.diffloss, "sample")
    model.sample_tokens(1, 4, 3.0, schedule, labels=LABELS[:1], temperature=0.9)
    left = [math.floor(16 * math.cos(math.pi / 2 * step / 4)) for step in (1, 2, 3)] + [1]
    expected = [1 + 2 * (16 - masked) / 16 if schedule == "linear" else 3.0 for masked in left]
    assert [call[2] for call in calls] == pytest.approx(expected)
    assert [call[1] for call in calls] == [0.9] * 4


@torch.no_grad()
def test_sampling_repeats_from_one_generator_and_from_the_global_seed() -> None:
    model = tiny_mar()

    def sample(generator: torch.Generator | None = None) -> Tensor:
        return model.sample_tokens(2, 4, 2.0, labels=LABELS[:2], generator=generator)

    first = sample(torch.Generator().manual_seed(3))
    assert torch.equal(first, sample(torch.Generator().manual_seed(3)))
    assert not torch.equal(first, sample(torch.Generator().manual_seed(4)))
    torch.manual_seed(3)
    assert torch.equal(first, sample())


@pytest.mark.parametrize("cfg", [1.0, 2.5])
@torch.no_grad()
def test_a_batch_split_in_two_equals_the_whole_when_orders_and_noise_are_given(cfg: float) -> None:
    model = tiny_mar()
    orders, noise = noise_for(model, 4)

    def sample(part: slice) -> Tensor:
        given = LABELS[part], orders[part], noise[part]
        return model.sample_tokens(len(given[0]), 5, cfg, labels=given[0], orders=given[1], noise=given[2])

    halves = torch.cat([sample(slice(0, 1)), sample(slice(1, 4))])
    torch.testing.assert_close(halves, sample(slice(0, 4)), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_loop_reads_rows_of_z_from_the_two_steps() -> None:
    """What an accelerator meets: one encoder and one decoder call a step, by name, then rows of ``z``."""
    model = tiny_mar()
    calls = {name: record_calls(model, name) for name in ENTRY_POINTS}
    model.sample_tokens(2, 4, labels=LABELS[:2])
    assert [len(calls[name]) for name in ENTRY_POINTS] == [4, 4]


@torch.no_grad()
def test_no_drawn_token_exceeds_the_limit() -> None:
    assert tiny_mar().sample_tokens(2, 3).abs().max() > 0.1
    assert tiny_mar(token_limit=0.1).sample_tokens(2, 3).abs().max() <= 0.1 + 1e-9


def test_bfloat16_models_sample() -> None:
    with torch.no_grad():
        assert tiny_mar().bfloat16().sample_tokens(2, 3, 2.0, labels=LABELS[:2]).dtype == torch.bfloat16


def test_an_unknown_guidance_schedule_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'cubic'"):
        tiny_mar().sample_tokens(1, 2, 2.0, "cubic")


def test_fewer_than_one_step_is_refused() -> None:
    with pytest.raises(ArgumentError, match="num_iter must be a whole number of at least 1, got 0"):
        tiny_mar().sample_tokens(1, 0)
