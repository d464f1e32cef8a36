import torch

from marche_fx.models.bundled import WEIGHTS, load_fashion_mar, load_judge

from .test_judge import IMAGES, LABELS


def test_the_bundled_mar_is_small_trained_and_in_eval_mode() -> None:
    model = load_fashion_mar()
    assert not model.training
    assert (WEIGHTS / "mar_fashion.safetensors").stat().st_size <= 16e6
    torch.manual_seed(0)
    with torch.no_grad():
        assert model(IMAGES[:50], LABELS[:50]).item() < 0.3  # Untrained: 1.9.


def test_garments_of_the_bundled_mar_are_recognised() -> None:
    labels = torch.arange(10)
    with torch.no_grad():
        model = load_fashion_mar(num_sampling_steps=25)
        images = model.sample_tokens(10, 12, 2.0, labels=labels, generator=torch.Generator().manual_seed(0))
    assert load_judge().accuracy(images, labels) >= 0.6
