"""Many processes: the same images, nothing lost or doubled, and nobody waits for a slow one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from marche_fx.sampling.ranks import Ranks, ranks
from tests.sampling import program
from tests.sampling.program import BATCH, COUNT, OPTIONS, SHARES, Watched
from tests.sampling.tiny import TOLD, files, garments, sampled

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    """What a run in other processes prints."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", program.__name__, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | own, timeout=300)
    assert found.returncode == 0, found.stderr
    return found.stdout


def records(out: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted((out / "shares").iterdir())]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """By one process."""
    out = tmp_path_factory.mktemp("alone")
    sampled(out, generate=Watched(garments(), TOLD), **OPTIONS)
    return files(out)


def test_a_slow_process_makes_one_share_and_the_others_the_rest(tmp_path: Path, expected: dict[str, bytes]) -> None:
    run(str(tmp_path), "slow")
    assert files(tmp_path) == expected, "the same bits as one process"
    made = Counter(own["rank"] for own in records(tmp_path))
    assert made[3] <= 1
    assert made.total() == SHARES
    assert json.loads((tmp_path / "summary.json").read_text())["made_in_the_last_run"] == [
        sum(min(BATCH, COUNT - index * BATCH) for index, own in enumerate(records(tmp_path)) if own["rank"] == rank)
        for rank in range(4)
    ]


def test_after_a_process_was_killed_all_are_started_again_and_nothing_is_lost_or_doubled(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    run(str(tmp_path), "killed")
    assert files(tmp_path) == expected
    runs = [own["run"] for own in records(tmp_path)]
    assert len(runs) == SHARES
    assert len(set(runs)) == 2, "shares of the first start are there, and those of the second"


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


@pytest.mark.slow
def test_two_machines_of_which_one_loses_a_process_start_again_and_make_the_same_images(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Two agents of torchrun, with two processes each, stand in for two machines that see one folder."""
    out, killed = tmp_path / "images", tmp_path / "killed"
    launching = (
        "--nnodes 2 --nproc-per-node 2 --max-restarts 1 --monitor-interval 0.1 --local-addr 127.0.0.1 "
        f"--rdzv-backend c10d --rdzv-id run --rdzv-endpoint 127.0.0.1:{free_port()}"
    )
    sampling = (
        f"-m marche_fx sample --count {COUNT} --batch {BATCH} --device cpu --model {program.__name__}:killed_once"
    )
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *launching.split(), *sampling.split()]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    agents = [
        subprocess.Popen(
            [*command, "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | own | {program.KILLED: str(killed)},
        )
        for _ in range(2)
    ]
    try:
        told = [agent.communicate(timeout=300)[0] for agent in agents]
    finally:
        for agent in agents:
            # It ends its processes.
            agent.terminate()
    assert [agent.returncode for agent in agents] == [0, 0], told
    assert killed.exists()
    assert any("SIGKILL" in each or "-9" in each for each in told), told
    images = {name: own for name, own in expected.items() if name.startswith("images/")}
    assert {f"images/{path.name}": path.read_bytes() for path in (out / "images").iterdir()} == images
    made = records(out)
    assert sum(int(str(each["count"])) for each in made) == COUNT
    assert len({each["run"] for each in made}) == 2, "shares of the first start are there, and those of the second"


def test_a_process_alone_claims_every_share_in_turn() -> None:
    with ranks() as own:
        assert (own.rank, own.world, own.is_first, own.gather(3)) == (0, 1, True, [3])
        assert [own.add("claimed", 1) for _ in range(3)] == [1, 2, 3]
        other = Ranks(0, 1, own.store, "another run")
        assert other.add("claimed", 1) == 1
