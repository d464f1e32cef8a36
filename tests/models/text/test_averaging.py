import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from marche_fx.models.text.averaging import average

from .tiny import tiny_model


def test_the_average_is_that_of_pytorch_bit_for_bit() -> None:
    model = tiny_model()
    own, theirs = AveragedModel(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average(own, model, 0.9)
        theirs.update_parameters(model)
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(own.state_dict()[name], tensor), name
