"""Children that no trace sees through, and that a step calls as they are: with active tokens alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx.api.optimization import optimization_of
from tests.networks import Transformer

TOKENS, WIDTH = 24, 8


class Experts(nn.Module):
    """Each token goes to two of four experts, which Python counts as those of LLaDA2 are."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 4, bias=False)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.called: list[torch.Size] = []
        self.counted = 0

    def forward(self, x: Tensor) -> Any:
        self.called.append(x.shape)
        self.counted = self.counted + x.shape[1]
        rows = x.reshape(-1, WIDTH)
        weights, chosen = self.router(rows).softmax(-1).topk(2, -1)
        order = chosen.flatten().argsort()
        counts = chosen.flatten().bincount(minlength=4).cpu().numpy()
        parts = rows[order // 2].split([int(count) for count in counts])
        made = torch.cat([expert(part) for expert, part in zip(self.experts, parts)])
        back = torch.empty_like(made).index_copy(0, order, made).view(-1, 2, WIDTH)
        return self.returned((back * weights[..., None]).sum(1).view_as(x), weights, chosen)

    def returned(self, y: Tensor, weights: Tensor, chosen: Tensor) -> Any:
        return y


class Telling(Experts):
    """Returns what the router said too, of all samples' tokens as one dimension, and nothing where it has no more."""

    def returned(self, y: Tensor, weights: Tensor, chosen: Tensor) -> Any:
        return y, {"weights": weights, "chosen": chosen.view(*y.shape[:-1], 2), "loss": None}


class Mixed(Transformer):
    """A transformer with experts after its layers and between them."""

    def __init__(self, experts: Callable[[], nn.Module] = Experts) -> None:
        super().__init__(TOKENS, WIDTH, 2, depth=2)
        self.first, self.others, self.back = experts(), nn.ModuleList([experts()]), nn.Linear(3, WIDTH)

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        x = self.back(super().forward(x + output_of(self.first(x))))
        return x + output_of(self.others[0](x))


def output_of(result: Any) -> Tensor:
    if isinstance(result, Tensor):
        return result
    y, told = result
    own: Tensor = y + told["weights"].sum(-1).view(*y.shape[:-1], 1) + told["chosen"].sum(-1, keepdim=True)
    return own


def made(model: nn.Module, **more: Any) -> Any:
    torch.manual_seed(0)
    return marche_fx.transform(model, **{"compile": False, "token_wise": ["first", "others.*"], **more})


def model_of(experts: Callable[[], nn.Module] = Experts) -> Any:
    torch.manual_seed(0)
    return Mixed(experts).eval().requires_grad_(False)


def inputs(samples: int) -> Tensor:
    return torch.randn(samples, TOKENS, WIDTH, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("experts", [Experts, Telling])
def test_a_step_in_full_is_the_originals(experts: Callable[[], nn.Module], samples: int) -> None:
    model, x = model_of(experts), inputs(samples)
    optimized = made(model, refresh="exact")
    torch.testing.assert_close(optimized(x), model(x))
    with marche_fx.decoding(optimized):
        for number in range(3):
            x = x.clone()
            x[:, number] += 1
            torch.testing.assert_close(optimized(x) + 0, model(x))


def test_it_is_called_with_active_tokens_alone() -> None:
    model, x = model_of(), inputs(2)
    optimized = made(model, refresh=marche_fx.SelectiveRefresh(0.05, warmup=1))
    with marche_fx.decoding(optimized):
        for number in range(4):
            x = x.clone()
            x[:, number] += 1
            model.first.called.clear()
            optimized(x)[:, :2].sum()
    assert [own[1] for own in model.first.called] == [8]
    # What it keeps for itself it keeps as it does in the original, and that makes the model no other one.
    assert model.first.counted > 4 * 8
    assert len(optimization_of(optimized).steps["forward"].programs) == 1
    found = marche_fx.report(optimized)
    assert found.steps[0].cost.fixed == 0
    assert "0 on all tokens" in str(found)
    assert "called as they are, as token_wise says, with active tokens alone: first, others.0; " in str(found)


def test_its_floating_point_operations_count() -> None:
    costs = []
    for experts in (Experts, nn.Identity):
        optimized = made(model_of(experts))
        optimized(inputs(2))
        (program,) = optimization_of(optimized).steps["forward"].programs
        costs.append(program.cost.original())
    # Two of four experts and the router for each token, twice.
    assert costs[0] - costs[1] == 2 * 2 * TOKENS * 2 * WIDTH * (2 * WIDTH + 4)


def test_layers_around_it_are_compiled_once() -> None:
    model, x = model_of(), inputs(2)
    optimized = made(model, compile=True, refresh=marche_fx.SelectiveRefresh(0.05, warmup=1))
    with marche_fx.decoding(optimized):
        for number in range(3):
            x = x.clone()
            x[:, number] += 1
            found = optimized(x)[:, :2] + 0
    exact = made(model, refresh=marche_fx.SelectiveRefresh(0.05, warmup=1))
    x = inputs(2)
    with marche_fx.decoding(exact):
        for number in range(3):
            x = x.clone()
            x[:, number] += 1
            expected = exact(x)[:, :2] + 0
    torch.testing.assert_close(found, expected)


def test_weights_that_change_and_hooks_count() -> None:
    model, x = model_of(), inputs(2)
    optimized = made(model, refresh="exact")
    optimized(x)
    with torch.no_grad():
        model.first.router.weight.neg_()
    torch.testing.assert_close(optimized(x), model(x))
    with model.first.register_forward_hook(lambda module, args, result: result * 2):
        torch.testing.assert_close(optimized(x), model(x))
    torch.testing.assert_close(optimized(x), model(x))
    model.first = optimized.first = Experts().eval().requires_grad_(False)
    torch.testing.assert_close(optimized(x), model(x))


def test_a_saved_capture_calls_the_children_of_the_next_model(tmp_path: Path) -> None:
    model, x = model_of(Telling), inputs(2)
    first = made(model, refresh="exact")
    first(x)
    marche_fx.save_captures(first, tmp_path / "captures")
    del first
    again, other = made(model_of(Telling), refresh="exact"), made(model_of(Telling), token_wise="first")
    marche_fx.load_captures(again, tmp_path / "captures")
    torch.testing.assert_close(again(x), model(x))
    assert optimization_of(again).steps["forward"].programs[0].plan.original.is_instance is False
    # Of other children, the file is of another model.
    with pytest.warns(UserWarning, match="is not used"):
        marche_fx.load_captures(other, tmp_path / "captures")


def test_a_dry_run_takes_the_same_word() -> None:
    model = model_of()
    with pytest.raises(marche_fx.CaptureError, match="token_wise='first'"):
        marche_fx.explain(model, inputs(2))
    found = marche_fx.explain(model, inputs(2), token_wise=["first", "others.*"])
    assert found.steps[0].cost.fixed == 0


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("compile", [False, True])
def test_a_child_that_stops_a_trace_is_told_the_word(compile: bool) -> None:
    optimized = marche_fx.transform(model_of(), compile=compile, token_wise="first")
    with pytest.raises(marche_fx.CaptureError, match=r"If 'others.0' treats each .* token_wise='others.\*'"):
        optimized(inputs(2))


class Scaled(nn.Module):
    """Of which a token reads others a little."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-7 * x.mean(1, keepdim=True)


class Counting(nn.Module):
    """Whose tokens are scaled by how many there are."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.shape[1]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Writing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(1)


class Pooling(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x.mean(1)


class Silent(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("child", "why"),
    [
        (Scaled, "gives other results for a token where other tokens are others"),
        (Counting, "gives other results for 12 of 24 tokens alone than for all"),
        (Noisy, "gives other results"),
        (Writing, "writes into what it is given"),
        (Pooling, r"returns float32 \[2, 8\] for rows \[2, 24, 8\]"),
        (Silent, "returns no tensor"),
    ],
)
def test_a_child_that_does_not_treat_each_token_by_itself_is_refused(child: Callable[[], nn.Module], why: str) -> None:
    optimized = made(model_of(child))
    with pytest.raises(marche_fx.UnsupportedModelError, match=f"'first', which token_wise names, {why}"):
        optimized(inputs(2))


def test_one_token_of_one_sample_tells_nothing() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp, self.model = Experts(), Transformer(TOKENS, WIDTH, 2)

        def forward(self, x: Tensor) -> Tensor:
            own: Tensor = self.model(x) + self.mlp(x[:, :1]).sum()
            return own

    optimized = made(Alone().eval().requires_grad_(False), token_wise="mlp")
    with pytest.raises(marche_fx.UnsupportedModelError, match="is called with a single token"):
        optimized(inputs(1))


def test_what_a_child_is_called_with_must_be_rows() -> None:
    class Asked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp, self.model = Asking(), Transformer(TOKENS, WIDTH, 2)

        def forward(self, x: Tensor, how: str = "") -> Tensor:
            x = x + self.model(x).sum(-1, keepdim=True)
            found: Tensor = (
                self.mlp(x, scale=2.0)
                if how == "by name"
                else self.mlp(x, x.long())
                if how == "numbers"
                else self.mlp(x, x[:, :4])
            )
            return found

    class Asking(nn.Module):
        def forward(self, x: Tensor, other: Any = None, scale: float = 1.0) -> Tensor:
            return x * scale

    for how, why in (
        ("by name", r"is called with \(float32 \[2, 24, 8\], scale=float\)"),
        ("numbers", r"is called with \(float32 \[2, 24, 8\], int64 \[2, 24, 8\]\) and not with tensors"),
        ("", "which have no rows in common"),
    ):
        optimized = made(Asked().eval().requires_grad_(False), token_wise="mlp")
        with pytest.raises(marche_fx.UnsupportedModelError, match=why):
            optimized(inputs(2), how)


def test_a_path_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(marche_fx.ArgumentError, match=r"names 'frist', and Mixed has no child of that path.* first"):
        made(model_of(), token_wise="frist")


def test_an_outer_child_stands_for_those_in_it() -> None:
    optimized = made(model_of(), token_wise=["first", "first.experts.*", "others.*"])
    torch.testing.assert_close(optimized(inputs(2)), model_of()(inputs(2)))
