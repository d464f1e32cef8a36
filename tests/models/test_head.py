import math

import pytest
import torch
from torch import Tensor

from marche_fx.errors import ArgumentError
from marche_fx.models.head import DiffLoss, ResBlock, SimpleMLPAdaLN, TimestepEmbedder


def random_head(steps: int = 4) -> DiffLoss:
    """4 channels, conditions of 6, a small random network; nothing is left at its initial zero."""
    torch.manual_seed(0)
    head = DiffLoss(4, 6, depth=2, width=8, num_sampling_steps=steps).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.3)
    return head


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draws(steps: int, count: int, seed: int = 0) -> Tensor:
    return torch.randn(steps, count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_state_dict_has_the_official_names_only() -> None:
    linears = ["time_embed.mlp.0", "time_embed.mlp.2", "cond_embed", "input_proj", "final_layer.linear"]
    linears += ["final_layer.adaLN_modulation.1"]
    for i in range(2):
        linears += [f"res_blocks.{i}.{part}" for part in ("in_ln", "mlp.0", "mlp.2", "adaLN_modulation.1")]
    expected = {f"net.{linear}.{kind}" for linear in linears for kind in ("weight", "bias")}
    assert set(random_head().state_dict()) == expected


def test_timesteps_become_cosines_and_sines_of_falling_frequency() -> None:
    embedder = TimestepEmbedder(8, frequency_embedding_size=6)
    embedder.mlp = torch.nn.Sequential(torch.nn.Linear(6, 6, bias=False))
    with torch.no_grad():
        next(embedder.mlp.parameters()).copy_(torch.eye(6))
    angles = [5 * 10_000 ** (-i / 3) for i in range(3)]
    expected = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])
    torch.testing.assert_close(embedder(torch.tensor([5]))[0].detach(), expected)


def test_an_untrained_network_predicts_nothing_and_its_blocks_pass_their_input_on() -> None:
    network = SimpleMLPAdaLN(4, 8, 6, 2)
    x, y = torch.randn(3, 8), torch.randn(3, 8)
    for block in network.res_blocks:
        assert isinstance(block, ResBlock)
        assert torch.equal(block(x, y), x)
    assert not network(torch.randn(3, 4), torch.tensor([1, 2, 3]), torch.randn(3, 6)).any()


def test_a_block_adds_its_gated_mlp_of_the_modulated_norm() -> None:
    block = random_head().net.get_submodule("res_blocks.0")
    x, y = rows(3, 8, seed=1), rows(3, 8, seed=2)
    shift, scale, gate = block.get_submodule("adaLN_modulation.1")(y * y.sigmoid()).split(8, dim=-1)
    weight, bias = block.get_parameter("in_ln.weight"), block.get_parameter("in_ln.bias")
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt() * weight + bias
    expected = x + gate * block.get_submodule("mlp")(normed + scale * normed + shift)
    torch.testing.assert_close(block(x, y), expected)


def test_every_input_of_the_network_matters() -> None:
    network, x, t, c = random_head().net, rows(2, 4), torch.tensor([5, 5]), rows(2, 6)
    output = network(x, t, c)
    assert not torch.allclose(output, network(x + 1, t, c))
    assert not torch.allclose(output, network(x, t + 1, c))
    assert not torch.allclose(output, network(x, t, c + 1))


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_guidance_moves_the_noise_away_from_the_unconditional_one(scale: float) -> None:
    network, x, t = random_head().net, rows(2, 4), torch.tensor([700, 700])
    conditional, unconditional = network(x, t, rows(2, 6, seed=1)), network(x, t, rows(2, 6, seed=2))
    c = torch.cat([rows(2, 6, seed=1), rows(2, 6, seed=2)])
    guided = network.forward_with_cfg(torch.cat([x, x]), torch.cat([t, t]), c, scale)
    expected = (1 - scale) * unconditional[:, :4] + scale * conditional[:, :4]
    torch.testing.assert_close(guided[:2, :4], expected)
    torch.testing.assert_close(guided[2:, :4], expected)
    torch.testing.assert_close(guided[:, 4:], torch.cat([conditional, unconditional])[:, 4:])


def test_sampling_repeats_from_a_generator_and_from_the_global_seed() -> None:
    head, z = random_head(), rows(3, 6)
    first = head.sample(z, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, head.sample(z, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(first, head.sample(z, generator=torch.Generator().manual_seed(4)))
    torch.manual_seed(3)
    assert torch.equal(first, head.sample(z))
    assert torch.equal(first, head.sample(z, noise=draws(4, 3, seed=3)))


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    head, z, noise = random_head(), rows(5, 6), draws(4, 5)
    torch.testing.assert_close(head.sample(z, noise=noise)[1:3], head.sample(z[1:3], noise=noise[:, 1:3]))


@pytest.mark.parametrize("cfg", [0.5, 2.0, 7.0])
def test_guidance_between_equal_conditions_changes_nothing(cfg: float) -> None:
    head, z, noise = random_head(), rows(3, 6), draws(4, 3)
    guided = head.sample(torch.cat([z, z]), cfg=cfg, noise=noise)
    torch.testing.assert_close(guided[:3], head.sample(z, noise=noise))


def test_guidance_between_different_conditions_changes_the_sample() -> None:
    head, z, noise = random_head(), rows(6, 6), draws(4, 3)
    assert not torch.allclose(head.sample(z, cfg=3.0, noise=noise)[:3], head.sample(z[:3], noise=noise))


def test_the_sampler_takes_its_steps_in_float32_whatever_the_network_computes_in() -> None:
    head = random_head().bfloat16()
    assert head.sample(rows(2, 6).bfloat16()).dtype == torch.float32


def test_a_loss_mask_selects_rows() -> None:
    head, target, z = random_head(), rows(4, 4), rows(4, 6)

    def loss(mask: Tensor | None) -> float:
        torch.manual_seed(0)
        return head(target, z, mask).item()

    single = [loss(torch.eye(4, dtype=torch.float64)[row]) for row in range(4)]
    assert loss(None) == pytest.approx(sum(single) / 4)
    assert loss(torch.tensor([1.0, 0.0, 1.0, 0.0])) == pytest.approx((single[0] + single[2]) / 2)
    assert len(set(single)) == 4


def test_training_visits_the_whole_schedule_and_sampling_the_respaced_one() -> None:
    head = random_head(steps=7)
    assert len(head.train_diffusion) == 1000
    assert len(head.gen_diffusion) == 7


def test_an_impossible_number_of_denoising_steps_is_refused() -> None:
    with pytest.raises(ArgumentError, match="denoising steps"):
        DiffLoss(4, 6, depth=1, width=8, num_sampling_steps=5000)
