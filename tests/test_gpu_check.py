"""The script for a machine with a GPU, tried on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_gpu_check_writes_what_it_finds(tmp_path: Path) -> None:
    environment = os.environ | {"OUT": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "scripts/gpu_check.sh", "--device", "cpu", "--only", "overhead"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    steps = found["checks"]["overhead"]["steps"]
    assert [own["variant"] for own in steps] == ["eager", "ours-eager 100%", "ours-eager 10%"]
    assert "operators" in (tmp_path / "gpu_check.txt").read_text()
