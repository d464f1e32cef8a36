"""Results as JSON lines, one for each batch: what is written stays, whatever stops the study."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import CheckpointError
from ...plain import parse_json
from ...saving.files import replacing
from ...saving.refused import writing


@dataclass(frozen=True)
class Line:
    """What a variant made of a batch of b.

    Attributes:
        policy: as it prints, so that results of another one of the same name are not taken for its own.
        answers: b lists of tokens. nats: b means over the tokens of an answer, under the exact model; none where the
            answers are judged without it.
        rows, results, flops: computed in the layers and of logits, over the original's in all of its steps.
        seconds: of the processor, see `generation`. run: of the process; times of one run can be compared.
    """

    loop: str
    variant: str
    batch: int
    policy: str
    answers: list[list[int]]
    nats: list[float]
    rows: float
    results: float
    flops: float
    seconds: float
    run: str

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.loop, self.variant, self.batch, self.policy


class Lines:
    """The lines in a file, by `Line.key`; what a kill left of a last one is dropped.

    Raises:
        CheckpointError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            whole, _, rest = path.read_text(encoding="utf-8").rpartition("\n") if path.exists() else ("", "", "")
            lines = [Line(**parse_json(text, float)) for text in whole.splitlines()]
            self.known = {line.key: line for line in lines}
        except (OSError, RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged. Remove it, or choose another --out.") from error
        if rest:
            with replacing(path) as partial:
                partial.write_text(f"{whole}\n" if whole else "", encoding="utf-8")

    def add(self, line: Line) -> None:
        self.known[line.key] = line
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")
            file.flush()
            os.fsync(file.fileno())
