import pytest
import torch

import marche_fx
from marche_fx.models.tokens import TokenGarments
from marche_fx.models.tokens.model import grid_angles
from marche_fx.models.transformer import rotate

from .tiny import tiny_maskgit


def test_both_models_fit_into_8_megabytes_at_two_bytes_a_parameter() -> None:
    assert sum(own.numel() for own in TokenGarments().parameters()) <= 4e6


def test_logits_are_of_codes_and_never_of_the_mask() -> None:
    model = tiny_maskgit()
    assert model(torch.full((2, 196), model.mask_id), torch.tensor([3, model.no_label])).shape == (2, 196, 12)


def test_rotary_products_depend_on_the_distance_in_rows_and_columns_alone() -> None:
    side = 6
    angles = grid_angles(side, 8)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([-angles.sin(), angles.sin()], -1)
    x, y = torch.randn(2, 1, 1, 1, 16)
    products = (rotate(x, cos, sin) @ rotate(y, cos, sin).transpose(-1, -2)).view(side, side, side, side)
    for down in range(3):
        for right in range(3):
            own = products[1 : side - down, 2 : side - right].diagonal(down, 0, 2).diagonal(right, 0, 1)
            expected = products[0, 0, down, right]
            found = torch.stack(
                [
                    products[row, column, row + down, column + right]
                    for row in range(side - down)
                    for column in range(side - right)
                ]
            )
            assert torch.allclose(found, expected.expand_as(found), atol=1e-4), own.shape


def test_labels_and_places_matter() -> None:
    model = tiny_maskgit().eval()
    ids = torch.full((1, 196), model.mask_id)
    with torch.no_grad():
        one, other = model(ids, torch.tensor([0])), model(ids, torch.tensor([1]))
    assert not torch.allclose(one, other)
    assert not torch.allclose(one[0, 0], one[0, 1])


@pytest.mark.parametrize("active", [1, 20, 196])
def test_the_model_is_accelerated_as_it_is(active: int) -> None:
    model = tiny_maskgit().eval().requires_grad_(False)
    optimized = marche_fx.transform(model, refresh=marche_fx.FullRefresh(), compile=False)
    ids = torch.randint(model.mask_id, (2, 196))
    ids[:, :active] = model.mask_id
    labels = torch.tensor([1, 2])
    with torch.no_grad(), marche_fx.decoding(optimized):
        for _ in range(2):
            torch.testing.assert_close(optimized(ids, labels) + 0, model(ids, labels))
            ids[:, 0] = 3
