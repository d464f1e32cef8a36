import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marche_fx.errors import CheckpointError, OutOfMemoryError
from marche_fx.models.checkpoint import load_checkpoint, save_weights
from marche_fx.models.presets import mar_fashion
from marche_fx.saving.files import replacing
from tests.flips import flipped

from .tiny import tiny_mar


def shifted(model: nn.Module, by: float) -> dict[str, Tensor]:
    return {name: tensor + by for name, tensor in model.state_dict().items()}


def holds(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, weights[name].to(tensor.dtype)) for name, tensor in model.state_dict().items())


def write(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def refusal(path: Path) -> str:
    """The message with which ``path`` is refused; asserts that the model keeps its weights."""
    model = tiny_mar()
    before = shifted(model, 0)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, path)
    assert holds(model, before)
    return str(caught.value)


# What loads


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_state_dict_loads_into_the_model_given(tmp_path: Path, name: str) -> None:
    model = tiny_mar()
    weights = shifted(model, 1)
    assert load_checkpoint(model, write(tmp_path / name, weights)) is model
    assert holds(model, weights)


def test_the_official_layout_gives_its_averaged_weights(tmp_path: Path) -> None:
    model = tiny_mar()
    content: dict[str, Any] = {"model": shifted(model, 1), "model_ema": shifted(model, 2), "epoch": 3}
    content["args"] = argparse.Namespace(model="mar_base", lr=1e-4)
    load_checkpoint(model, write(tmp_path / "checkpoint-last.pth", content))
    assert holds(model, content["model_ema"])


def test_the_official_layout_without_averaged_weights_gives_the_others(tmp_path: Path) -> None:
    model = tiny_mar()
    content: dict[str, Any] = {"model": shifted(model, 1), "optimizer": {"state": {}}}
    load_checkpoint(model, write(tmp_path / "checkpoint-last.pth", content))
    assert holds(model, content["model"])


def test_the_older_format_of_torch_files_loads(tmp_path: Path) -> None:
    model = tiny_mar()
    weights = shifted(model, 1)
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert holds(load_checkpoint(model, str(tmp_path / "old.pth")), weights)


def test_half_precision_weights_are_cast_to_the_models_dtype(tmp_path: Path) -> None:
    model = tiny_mar()
    half = {name: tensor.half() for name, tensor in shifted(model, 1).items()}
    load_checkpoint(model, write(tmp_path / "half.safetensors", half))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert holds(model, half)


def test_saved_weights_are_float16_and_buffers_are_kept_as_they_are(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.randn(5, 3))
    save_weights(model, tmp_path / "weights.safetensors")
    stored = load_file(tmp_path / "weights.safetensors")
    assert {name: tensor.dtype for name, tensor in stored.items() if "running" in name or "num" in name} == {
        "1.running_mean": torch.float32,
        "1.running_var": torch.float32,
        "1.num_batches_tracked": torch.int64,
    }
    assert all(stored[name].dtype == torch.float16 for name, _ in model.named_parameters())
    restored = load_checkpoint(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), tmp_path / "weights.safetensors")
    torch.testing.assert_close(restored.state_dict(), model.state_dict(), rtol=1e-3, atol=1e-3)


# What is refused


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_missing_unexpected_and_misshapen_entries_are_listed(tmp_path: Path, name: str) -> None:
    weights = shifted(tiny_mar(), 1)
    del weights["mask_token"]
    weights["extra.weight"] = torch.zeros(2)
    weights["z_proj.weight"] = weights["z_proj.weight"].T.contiguous()
    weights["z_proj.bias"] = weights["z_proj.bias"].to(torch.int8)
    message = refusal(write(tmp_path / name, weights))
    assert "missing (1): mask_token" in message
    assert "unexpected (1): extra.weight" in message
    assert "z_proj.weight is float64 [4, 16], expected float64 [16, 4]" in message
    assert "z_proj.bias is int8 [16], expected float64 [16]" in message


def test_weights_of_another_published_size_are_named(tmp_path: Path) -> None:
    save_weights(mar_fashion(), tmp_path / "weights.safetensors")
    message = refusal(tmp_path / "weights.safetensors")
    assert "the shapes of MAR's size 'fashion' (marche_fx.models.mar_fashion)" in message
    assert "and" in message
    assert "more" in message


@given(share=st.floats(0, 0.999), name=st.sampled_from(["weights.safetensors", "weights.pth", "old.pth"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_file_is_refused(tmp_path: Path, share: float, name: str) -> None:
    path = tmp_path / name
    weights = shifted(tiny_mar(), 1)
    if name == "old.pth":
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    else:
        write(path, weights)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert str(path) in refusal(path)


class Trap:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_checkpoint_with_code_is_refused_and_the_code_not_run(tmp_path: Path, new_format: bool) -> None:
    path, marker = tmp_path / "trap.pth", tmp_path / "marker"
    torch.save({"model": Trap(marker)}, path, _use_new_zipfile_serialization=new_format)
    assert "refers to code" in refusal(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the trap works"


def test_a_plain_pickle_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "trap.pth", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"model": Trap(marker)}, protocol=2))
    assert "refers to code" in refusal(path)
    assert not marker.exists()


def test_the_advice_never_is_to_load_unsafely(tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "marker")}, tmp_path / "trap.pth")
    assert "weights_only" not in refusal(tmp_path / "trap.pth")


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(tiny_mar(), tmp_path / "model.pth")
    assert "refers to code (marche_fx.models.mar.MAR)" in refusal(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["text.safetensors", "text.pth"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are not weights\n" * 20)
    assert name in refusal(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no checkpoint file" in refusal(tmp_path / "absent.pth")
    assert "no checkpoint file" in refusal(tmp_path)


def test_content_that_is_not_tensors_is_refused(tmp_path: Path) -> None:
    assert "holds a list" in refusal(write(tmp_path / "list.pth", [torch.zeros(2)]))
    assert "step (int)" in refusal(write(tmp_path / "numbers.pth", {"step": 3}))


def test_a_flipped_bit_of_saved_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(nn.Linear(4, 8), path)
    weights = load_checkpoint(nn.Linear(4, 8), path).state_dict()
    refused = 0
    for _ in flipped(path, 300):
        try:
            found = load_checkpoint(nn.Linear(4, 8), path).state_dict()
        except CheckpointError:
            refused += 1
        else:
            # In the name under which the digest stands, or of the format.
            assert all(torch.equal(found[name], own) for name, own in weights.items())
    assert refused > 200


# Writing


def test_weights_that_cannot_be_written_are_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(nn.Linear(2, 2), tmp_path / "absent" / "weights.safetensors")


def test_a_file_for_which_there_is_not_the_memory_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pth")

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(OutOfMemoryError, match="no memory is left to read"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "weights.pth")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
