"""Evaluations of a tiny MAR from beginning to end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marche_fx import ArgumentError, Denoising, HeadReuse, Recipe, SelectiveRefresh
from marche_fx.api.transform import transform
from marche_fx.evaluate import (
    DriftSettings,
    Evaluation,
    Settings,
    evaluate,
    evaluate_drift,
    generation,
    parse_points,
    recipe_point,
)
from marche_fx.evaluate.draws import batch_draws
from marche_fx.evaluate.folder import Folder
from marche_fx.evaluate.generation import Models
from marche_fx.evaluate.rows import of_one_run, time_ratio
from marche_fx.evaluate.settings import identity
from marche_fx.evaluate.steps import steps_ratios
from marche_fx.evaluate.tasks import Task
from marche_fx.models import load_judge
from marche_fx.models.generation import Generation, Sampling, generate

from .test_folder import BATCH
from .tiny import silent, tiny_garments, written

MODEL = tiny_garments()
SETTINGS = Settings(steps=6, cfg=2.0, images=6, batch=3, drift_images=2)
POINTS = parse_points(["exact", "exact#2", "exact@3", "nothing"])
TIMES = ("seconds_ratio", "transformer_seconds_ratio")


def figures(out: Path) -> dict[str, Any]:
    """What an evaluation wrote, without its times."""
    return without_times(json.loads((out / "evaluation.json").read_text()))


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    for row in content["rows"]:
        for name in TIMES:
            del row[name]
    return content


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def evaluation(out: Path) -> Evaluation:
    return evaluate(MODEL, POINTS, out, SETTINGS, console=silent())


def test_there_is_a_row_for_each_point(evaluation: Evaluation, out: Path) -> None:
    exact, second, shorter, nothing = evaluation.rows
    assert [row.policy for row in evaluation.rows] == ["exact", "exact#2", "exact@3", "nothing"]
    assert exact.flops_ratio == second.flops_ratio == 1
    assert 0.4 < shorter.flops_ratio < 0.6
    assert 0.3 < nothing.flops_ratio < 0.95
    assert nothing.drift == pytest.approx(sum(nothing.drift_by_step) / 6)
    assert nothing.drift > 1e-5 > exact.drift == shorter.drift == 0
    assert exact.seconds_ratio == 1
    for row in evaluation.rows:
        assert row.frechet_low < row.frechet < row.frechet_high
        assert row.images == 6
        assert row.seconds_ratio is not None
    found = json.loads((out / "evaluation.json").read_text())
    assert found == json.loads(json.dumps(evaluation.to_dict()))
    assert found["settings"]["images"] == 6


def test_the_exact_interval_spans_all_of_its_sets_of_seeds(evaluation: Evaluation) -> None:
    exact, second, *_ = evaluation.rows
    low, high = min(exact.frechet_low, second.frechet_low), max(exact.frechet_high, second.frechet_high)
    assert evaluation.exact_interval == (low, high)
    assert exact.frechet != second.frechet


def test_differences_are_of_points_on_the_same_seeds(evaluation: Evaluation) -> None:
    exact, _, _, nothing = evaluation.rows
    found = evaluation.differences
    assert {one: set(others) for one, others in found.items()} == {
        "exact": {"exact@3", "nothing"},
        "exact#2": set(),
        "exact@3": {"exact", "nothing"},
        "nothing": {"exact", "exact@3"},
    }
    assert found["nothing"]["exact"].estimate == pytest.approx(nothing.frechet - exact.frechet)
    assert found["exact"]["nothing"].high == pytest.approx(-found["nothing"]["exact"].low)


def test_pictures_are_written(evaluation: Evaluation, out: Path) -> None:
    for name in ("quality.png", "drift.png", "images.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_features_are_the_judges_of_the_images_that_the_models_own_loop_makes(
    evaluation: Evaluation, out: Path
) -> None:
    folder = Folder(out, evaluation.settings)
    draws = batch_draws(MODEL, SETTINGS, 1, 1)
    images = MODEL.sample_tokens(
        3, 6, 2.0, labels=draws.labels, temperature=0.8, orders=draws.orders, noise=draws.noise
    )
    with torch.no_grad():
        expected = load_judge().features(images.clamp(-1, 1))
    torch.testing.assert_close(folder.read_batch(POINTS[0], 1).features, expected, rtol=1e-5, atol=1e-5)


def test_points_of_a_set_share_their_seeds_and_sets_do_not(evaluation: Evaluation, out: Path) -> None:
    folder = Folder(out, evaluation.settings)

    def first(number: int) -> Tensor:
        return folder.read_batch(POINTS[number], 0).features

    # Six steps with stale rows make nearly the same garments; other seeds do not.
    near, far = ((first(0) - first(number)).norm() for number in (3, 1))
    assert near < 0.5 * far


def test_an_interrupted_evaluation_goes_on_to_the_same_figures(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = generation.generate

    def stopping(*args: Any, **kwargs: Any) -> Generation:
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append("")
        return real(*args, **kwargs)

    points = [POINTS[0], POINTS[3], POINTS[1]]
    with monkeypatch.context() as patched:
        patched.setattr(generation, "generate", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(MODEL, points[::2], tmp_path, SETTINGS, console=silent())
    (finished,) = tmp_path.rglob("batch-*.safetensors")
    then = finished.stat().st_mtime_ns
    evaluate(MODEL, points, tmp_path, SETTINGS, console=silent())
    assert finished.stat().st_mtime_ns == then
    found, expected = figures(tmp_path), without_times(json.loads(json.dumps(evaluation.to_dict())))
    assert found["settings"] == expected["settings"]
    assert found["exact_interval"] == expected["exact_interval"]
    assert found["rows"] == [expected["rows"][number] for number in (0, 3, 1)]


def test_damaged_results_are_computed_again(evaluation: Evaluation, out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "copy")
    folder = Folder(copy, evaluation.settings)
    for path in (folder.batch_file(POINTS[3], 1), folder.drift_file(POINTS[3])):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged and not used; what it held is computed again") as warned:
        evaluate(MODEL, POINTS, copy, SETTINGS, console=silent())
    assert len(warned) == 2
    assert figures(copy) == figures(out)


def test_a_finished_evaluation_is_told_again_and_may_be_asked_for_less(
    evaluation: Evaluation, out: Path, tmp_path: Path
) -> None:
    console = silent()
    copy = shutil.copytree(out, tmp_path / "copy")
    again = evaluate(MODEL, POINTS[:1], copy, SETTINGS, console=console)
    assert again.rows == evaluation.rows[:1]
    assert "exact over 1 set of seeds" in written(console)


def test_only_batches_of_one_run_are_compared_in_time() -> None:
    def batch(run: str, seconds: float) -> Any:
        return type(BATCH)(**{**vars(BATCH), "run": run, "seconds": seconds})

    own, exact = (
        [batch("a", 1.0), batch("b", 9.0), batch("b", 3.0)],
        [batch("a", 2.0), batch("a", 1.0), batch("b", 2.0)],
    )
    assert time_ratio((a.seconds, b.seconds) for a, b in of_one_run(own, exact)) == 1.0
    assert time_ratio((a.seconds, b.seconds) for a, b in of_one_run(own, [])) is None


def test_equal_steps_cost_equal_flops() -> None:
    assert steps_ratios(MODEL, {8}, 8) == {8: 1.0}


def test_drift_alone_makes_one_exact_generation_for_each_set_of_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marche_fx.evaluate import drift

    recorded: list[tuple[int, int]] = []
    real = drift.record_exact

    def counting(model: Any, settings: Any, seeds: int, count: int, transformed: Any) -> Any:
        recorded.append((seeds, count))
        return real(model, settings, seeds, count, transformed)

    monkeypatch.setattr(drift, "record_exact", counting)
    points = parse_points(["nothing", "random:0.15", "exact#2"])
    settings = DriftSettings(steps=6, cfg=2.0, drift_images=2)
    rows = evaluate_drift(MODEL, points, tmp_path, settings, console=silent())
    assert recorded == [(1, 6)]
    nothing, random, exact = rows
    assert (random.fraction, nothing.fraction, exact.fraction) == (0.15, 0.0, None)
    assert nothing.drift > random.drift > exact.drift == 0
    assert nothing.flops_ratio < random.flops_ratio < exact.flops_ratio == 1
    content = json.loads((tmp_path / "drift.json").read_text())
    assert [row["policy"] for row in content["rows"]] == [point.spec for point in points]
    assert set(content["rows"][0]) >= {"policy", "fraction", "steps", "cfg", "flops_ratio", "drift", "drift_by_step"}
    assert content["drift_over_others"] == {"nothing": {}, "random:0.15": {}}, "single points are no curve"
    assert evaluate_drift(MODEL, points, tmp_path, settings, console=silent()) == rows
    assert recorded == [(1, 6)], "what was measured is not measured again"


def test_no_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no policy"):
        evaluate(MODEL, [], tmp_path, SETTINGS)


@pytest.mark.parametrize("word", ["exact", "selective:1"])
def test_images_are_denoised_as_the_settings_say(word: str) -> None:
    settings = replace(SETTINGS, denoising=Denoising(3))
    evaluations: list[int] = []
    hook = MODEL.diffloss.net.time_embed.register_forward_pre_hook(lambda *_: evaluations.append(1))
    try:
        models, point = Models(Task(MODEL, load_judge()), settings), parse_points([word])[0]
        models.generate(point, models.draws(point, 0))
    finally:
        hook.remove()
    assert len(evaluations) == 3 * settings.steps


def test_another_denoising_or_order_is_another_evaluation(tmp_path: Path) -> None:
    asked = replace(SETTINGS, denoising=Denoising(anneal=(5, 2)))
    for _ in range(2):
        Folder(tmp_path, identity(asked, model=MODEL))
    with pytest.raises(ArgumentError, match="denoising was"):
        Folder(tmp_path, identity(SETTINGS, model=MODEL))
    with pytest.raises(ArgumentError, match="order was random and is halton"):
        Folder(tmp_path, identity(replace(asked, order="halton"), model=MODEL))


RECIPE = Recipe(SelectiveRefresh(0.3, warmup=1), Denoising(3), HeadReuse(guidance=2), steps=4, order="halton")


def test_a_recipe_is_a_point_that_decodes_as_it_says(tmp_path: Path, evaluation: Evaluation) -> None:
    mixed = recipe_point("own.json", replace(RECIPE, cfg=2.0))
    found = evaluate(MODEL, [POINTS[0], mixed], tmp_path, SETTINGS, console=silent())
    exact, own = found.rows
    assert own.policy == "recipe:own.json@4"
    assert len(own.drift_by_step) == 4
    assert own.flops_ratio < 0.7
    assert exact.frechet == pytest.approx(evaluation.rows[0].frechet)
    # The same by the parts that transform takes.
    folder = Folder(tmp_path, identity(SETTINGS, model=MODEL, judge=load_judge()))
    parts = transform(MODEL, refresh=RECIPE.refresh, denoising=RECIPE.denoising, reuse=RECIPE.reuse, compile=False)
    draws = batch_draws(MODEL, replace(SETTINGS, order="halton"), 1, 0)
    for _ in range(2):
        by_hand = generate(parts, draws, Sampling(4, SETTINGS.cfg, SETTINGS.temperature), progress=False)
    features = load_judge().features(by_hand.images)
    assert torch.allclose(folder.read_batch(mixed, 0).features, features, rtol=1e-3, atol=1e-3)


def test_recipes_at_another_guidance_or_beside_a_denoising_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="says cfg=3, and the evaluation 2"):
        evaluate(MODEL, [recipe_point("own", replace(RECIPE, cfg=3.0))], tmp_path / "a", SETTINGS, console=silent())
    both = replace(SETTINGS, denoising=Denoising(3))
    with pytest.raises(ArgumentError, match="--recipe or --denoising"):
        evaluate(MODEL, [recipe_point("own", RECIPE)], tmp_path / "b", both, console=silent())
