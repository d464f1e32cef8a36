import torch
from torch import Tensor
from torch.nn import functional as F

from marche_fx.models.tokens import Decoding, generate_codes, guided

from .tiny import tiny_garments, tiny_maskgit


class Known:
    """It is sure of the code that a label stands for, and knows nothing without a label."""

    mask_id, no_label, tokens = 12, 10, 196

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor:
        self.asked.append(ids)
        sure = F.one_hot(labels.clamp(max=9), 12) * 50.0 * (labels != self.no_label)[:, None]
        return sure[:, None].expand(-1, self.tokens, -1)


def test_every_code_is_written_in_the_given_number_of_steps() -> None:
    model = Known()
    codes = generate_codes(model, torch.tensor([4, 7]), Decoding(steps=6))
    assert codes.tolist() == [[4] * 196, [7] * 196]
    masks = [int((asked[0] == model.mask_id).sum()) for asked in model.asked]
    assert masks == [196, 189, 169, 138, 98, 50]


def test_guidance_moves_logits_away_from_those_without_label_as_codes_become_known() -> None:
    model = tiny_maskgit().eval()
    labels = torch.tensor([2, 5])
    ids = torch.randint(model.mask_id, (2, 196))
    ids[0, :98] = model.mask_id
    with torch.no_grad():
        found = guided(model, labels, 3.0)(ids)
        told, untold = model(ids, labels), model(ids, torch.full_like(labels, model.no_label))
    torch.testing.assert_close(found[0], told[0] + 1.5 * (told[0] - untold[0]))
    torch.testing.assert_close(found[1], told[1] + 3.0 * (told[1] - untold[1]))


def test_images_are_the_same_again_with_the_same_seed() -> None:
    garments, labels = tiny_garments(), torch.arange(10)

    def sample(seed: int) -> Tensor:
        return garments.sample(labels, Decoding(steps=3, guidance=1.0), generator=torch.Generator().manual_seed(seed))

    images = sample(1)
    assert images.shape == (10, 1, 28, 28)
    assert images.abs().max() <= 1
    assert torch.equal(images, sample(1))
    assert not torch.equal(images, sample(2))
