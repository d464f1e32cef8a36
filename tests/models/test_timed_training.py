from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from marche_fx.errors import TrainingError
from marche_fx.models.timed_training import rate_by_share, train_for


class Bias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(1.0))

    def loss(self) -> Tensor:
        return self.value**2


class Rates(torch.optim.SGD):
    """It keeps the learning rates it was given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=1.0)
        self.seen: list[float] = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.seen.append(self.param_groups[0]["lr"])
        super().step()


def ticks(seconds: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += seconds


def test_the_rate_rises_and_falls_with_the_time_that_has_passed() -> None:
    assert [rate_by_share(share, 0.5) for share in (0, 0.25, 0.5, 0.75, 1)] == [0, 0.5, 1, 0.5, 0]


def test_training_ends_with_its_time_and_its_rate_with_it() -> None:
    model = Bias()
    optimizers = [Rates(model), Rates(model)]
    clock = ticks(0.1)
    steps = train_for(10.0, model, optimizers, model.loss, 0.2, clock=lambda: next(clock))
    assert steps in (99, 100)
    assert not model.training
    assert model.value.abs() < 0.1
    assert optimizers[0].seen == optimizers[1].seen
    assert max(optimizers[0].seen) == pytest.approx(0.2, rel=0.05)
    assert optimizers[0].seen[-1] < 0.01
    assert optimizers[0].seen[50] == pytest.approx(0.2 * rate_by_share(0.51), rel=0.05)


def test_it_is_told_how_training_goes() -> None:
    model, told = Bias(), []
    clock = ticks(0.01)
    optimizer = torch.optim.SGD(model.parameters())
    train_for(10.0, model, [optimizer], model.loss, 0.01, tell=lambda *own: told.append(own), clock=lambda: next(clock))
    shares = [share for share, _, _ in told]
    assert len(shares) == 10
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], abs=0.06)
    losses = [loss for _, _, loss in told]
    assert losses == sorted(losses, reverse=True)


def test_a_loss_that_is_no_number_ends_training() -> None:
    model = Bias()
    nn.init.constant_(model.value, float("nan"))
    with pytest.raises(TrainingError, match="the loss became nan"):
        train_for(60.0, model, [torch.optim.SGD(model.parameters())], model.loss, 0.1)


def test_no_time_is_refused() -> None:
    model = Bias()
    with pytest.raises(TrainingError, match="over before the first step"):
        train_for(-1.0, model, [torch.optim.SGD(model.parameters())], model.loss, 0.1)
