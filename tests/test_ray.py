"""The example of a cluster, on two actors of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import marche_fx
from tests.evaluate.tiny import silent
from tests.sampling.tiny import garments

pytest.importorskip("ray")


def test_two_actors_make_the_images_that_one_process_makes(tmp_path: Path) -> None:
    from examples import sample_with_ray

    told = {"steps": 6, "cfg": 2.0, "temperature": 1.0}
    made = sample_with_ray.main(12, 3, actors=2, out=tmp_path / "ray", build=garments, told=told)
    assert sorted(own["id"] for own in made) == [0, 1, 2, 3]
    assert sample_with_ray.main(12, 3, actors=2, out=tmp_path / "ray", build=garments, told=told) == []
    mar = garments()
    loop, optimized = sample_with_ray.MarLoop(mar, told), marche_fx.transform(mar, compile=False)
    alone = tmp_path / "alone"
    marche_fx.sample(optimized, loop, 12, alone, batch=3, labels="balanced", format="npz", console=silent())
    for index in range(4):
        found, expected = (np.load(tmp_path / name / f"{index:06d}.npz") for name in ("ray", "alone/images"))
        np.testing.assert_array_equal(found["images"], expected["images"])
