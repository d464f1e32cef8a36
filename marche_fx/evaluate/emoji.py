"""Decoding steps, caches and denoising compared on emoji, on the same draws: ``python -m marche_fx.evaluate.emoji``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..api.transform import transform
from ..errors import ArgumentError
from ..models import MAR, Judge, load_checkpoint
from ..models.bundled import EMOJI_WEIGHTS
from ..models.dataset import to_pixels
from ..models.emoji.autoencoder import AUTOENCODER_FILE, Autoencoder
from ..models.emoji.autoencoding import reconstruction
from ..models.emoji.dataset import Emoji, load_emoji
from ..models.emoji.drawing import labelled_as, save_pictures, shuffled
from ..models.emoji.judge import emoji_judge
from ..models.generation import Sampling, draw, sample
from ..models.judge import JUDGE_FILE
from ..models.presets import mar_emoji
from ..models.train import WEIGHTS_FILE
from ..refresh import PRESETS, FullRefresh, RefreshPolicy, SelectiveRefresh
from ..reporting.report import report
from ..saving.files import write_json
from ..saving.refused import make_folder
from ..stopping import run_command
from .metrics import Spread, frechet, label_accuracy
from .points import EXACT, parse_point

WAYS = (
    *(f"exact@{steps}" for steps in (64, 32, 16, 8, 4)),
    *(f"{policy}@{steps}" for policy in ("default", "balanced") for steps in (64, 32)),
    *(f"exact@64+quadratic:{steps}" for steps in (25, 10)),
)
"""What is compared with the first of them when nothing else is asked for."""

SHOWN = 98


@dataclass(frozen=True)
class Way:
    """A way to decode.

    Attributes:
        word: that means it. policy: None for the original. denoising: a word, None for the head's own.
    """

    word: str
    steps: int
    policy: RefreshPolicy | None
    denoising: str | None

    @property
    def model(self) -> tuple[RefreshPolicy | None, str | None]:
        """What ways of other numbers of steps share."""
        return self.policy, self.denoising


def parse_way(word: str) -> Way:
    """``exact@16``, ``default@64``, ``balanced@32``, ``selective:0.1@64``, ``exact@64+quadratic:25``.

    Raises:
        ArgumentError: there is no such policy, or no number of steps is given.
    """
    decoding, _, denoising = word.partition("+")
    name, _, steps = decoding.rpartition("@")
    if not name or not steps.isdecimal() or int(steps) < 1:
        raise ArgumentError(f"{word!r} says no number of decoding steps, as in balanced@32 or exact@64+quadratic:25")
    named = {**PRESETS, "default": SelectiveRefresh(), EXACT: None}
    policy = named[name] if name in named else parse_point(name).policy
    return Way(word, int(steps), policy, denoising or None)


@dataclass(frozen=True)
class Drawn:
    """What the judge says of a way's pictures, on the CPU.

    Attributes:
        features: ``[M, D]``. predicted: groups ``[M]``. pictures: the first of them.
        flops_ratio: of the transformer, over the exact one's in as many steps.
    """

    features: Tensor
    predicted: Tensor
    pictures: Tensor
    seconds: float
    flops_ratio: float


class Study:
    """The models, and the draws that all ways share.

    Args:
        labels: subgroups ``[M]``. batch: pictures drawn at once.
    """

    def __init__(
        self,
        mar: MAR,
        autoencoder: Autoencoder,
        judge: Judge,
        labels: Tensor,
        batch: int,
        cfg: float,
        temperature: float,
    ) -> None:
        self.mar = mar
        self.autoencoder = autoencoder
        self.judge = judge
        self.cfg = cfg
        self.temperature = temperature
        self.draws = [draw(mar, part, seeded(number)) for number, part in enumerate(labels.split(batch))]
        self.transformed: dict[tuple[RefreshPolicy | None, str | None], MAR] = {}

    def of(self, way: Way) -> MAR:
        """The model of a way; one that is transformed has been captured for batches of every size."""
        if way.model == (None, None):
            return self.mar
        if way.model not in self.transformed:
            policy = FullRefresh() if way.policy is None else way.policy
            model = transform(self.mar, refresh=policy, denoising=way.denoising, compile=False)
            for draws in {len(draws.labels): draws for draws in self.draws}.values():
                sample(model, draws, Sampling(2, self.cfg, self.temperature))
            self.transformed[way.model] = model
        return self.transformed[way.model]

    @torch.inference_mode()
    def draw(self, way: Way) -> Drawn:
        model = self.of(way)
        sampling = Sampling(way.steps, self.cfg, self.temperature)
        started = time.perf_counter()
        # Copied to the host, which waits for the device.
        latents = [sample(model, draws, sampling).cpu() for draws in self.draws]
        seconds = time.perf_counter() - started
        pictures = torch.cat([self.autoencoder.decode(part.to(self.judge.feature_mean.device)) for part in latents])
        session = report(model).session if model is not self.mar else None
        return Drawn(
            self.judge.all_features(pictures).cpu(),
            torch.cat([self.judge(part).argmax(-1) for part in pictures.split(500)]).cpu(),
            pictures[:SHOWN].cpu(),
            seconds,
            1.0 if session is None else session.flops_ratio,
        )

    def distance(self, features: Tensor) -> Spread:
        return frechet(features, self.judge.feature_mean.cpu(), self.judge.feature_covariance.cpu())


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def rows(
    study: Study, ways: list[Way], groups: Tensor, show: Callable[[Way, Tensor], None]
) -> Iterator[dict[str, Any]]:
    """What is found for each way, the first of which the others are compared with; ``groups`` ``[M]`` are right."""
    first: Spread | None = None
    for way in ways:
        drawn = study.draw(way)
        spread = study.distance(drawn.features)
        first = first or spread
        show(way, drawn.pictures)
        yield {
            "way": way.word,
            "frechet": asdict(spread.interval),
            "over_first": asdict((spread - first).interval),
            "label_accuracy": label_accuracy(drawn.predicted, groups),
            "seconds": drawn.seconds,
            "transformer_flops_ratio": drawn.flops_ratio,
        }


def references(study: Study, emoji: Emoji, labels: Tensor) -> dict[str, Any]:
    """What pictures are like that no model drew: those seen of the same ``labels`` ``[M]``, and those held out.

    Held-out pictures that the autoencoder decodes tell what it costs; as they are, their distance is 0.
    """
    device = study.judge.feature_mean.device
    held_out = emoji.in_groups(emoji.held_out).to(device)
    seen = emoji.in_groups(labelled_as(emoji.training, labels)).to(device)
    decoded = reconstruction(study.autoencoder, held_out.images)
    distances = {
        name: asdict(study.distance(study.judge.all_features(pictures).cpu()).interval)
        for name, pictures in (("pictures_seen", to_pixels(seen.images)), ("held_out_reconstructed", decoded))
    }
    accuracies = {
        f"{name}_label_accuracy": study.judge.accuracy(to_pixels(own.images), own.labels)
        for name, own in (("pictures_seen", seen), ("held_out", held_out))
    }
    return distances | accuracies


def run(given: argparse.Namespace) -> None:
    """Draw and judge in every way, and write what is found after each to ``study.json``."""
    ways = [parse_way(word) for word in given.ways]
    device, began = torch.device(given.device), time.monotonic()
    emoji = load_emoji(given.data)
    make_folder(given.out)
    mar = load_checkpoint(mar_emoji(), given.weights / WEIGHTS_FILE).to(device).eval()
    autoencoder = load_checkpoint(Autoencoder(), given.weights / AUTOENCODER_FILE).to(device).eval()
    judge = load_checkpoint(emoji_judge(), given.weights / JUDGE_FILE).to(device).eval()
    held_out = shuffled(emoji.held_out, len(emoji.held_out)).labels
    labels = held_out.repeat(-(-given.images // len(held_out)))[: given.images]
    study = Study(mar, autoencoder, judge, labels.to(device), given.batch, given.cfg, given.temperature)
    settings = {name: getattr(given, name) for name in ("images", "cfg", "temperature")}
    found: dict[str, Any] = {**settings, "references": references(study, emoji, labels), "rows": []}
    print(found["references"], flush=True)

    def show(way: Way, pictures: Tensor) -> None:
        save_pictures(pictures, given.out / f"{way.word.replace(':', '_')}.png")

    for row in rows(study, ways, emoji.group_of[labels], show):
        found["rows"].append(row)
        write_json(given.out / "study.json", found)
        print(line(row), flush=True)
        left = ways[len(found["rows"]) :]
        if left and time.monotonic() - began > 60 * given.minutes:
            print(f"the time is over; left out: {', '.join(way.word for way in left)}", flush=True)
            return


def line(row: dict[str, Any]) -> str:
    distance, over = row["frechet"], row["over_first"]
    return (
        f"{row['way']}: Frechet {distance['estimate']:.3f} ({distance['low']:.3f} to {distance['high']:.3f}), "
        f"{over['estimate']:+.3f} ({over['low']:+.3f} to {over['high']:+.3f}) over the first, "
        f"label {row['label_accuracy']:.1%}, {row['seconds']:.1f} s, "
        f"{row['transformer_flops_ratio']:.2f} of the transformer's FLOPs"
    )


def main() -> None:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    parser = argparse.ArgumentParser(description="Compare ways to decode emoji, on the same draws.")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="what python -m marche_fx.models.emoji.pictures made")
    add(
        "--weights",
        type=Path,
        default=EMOJI_WEIGHTS,
        help="folder that python -m marche_fx.models.emoji.training wrote; the bundled weights when omitted",
    )
    add("--out", type=Path, required=True, help="folder for study.json and pictures")
    add("--ways", nargs="+", default=WAYS, help="such as exact@16, balanced@32 or exact@64+quadratic:25")
    add("--images", type=int, default=1135, help="to draw in each way")
    add("--batch", type=int, default=568, help="pictures to draw at once")
    add("--cfg", type=float, default=3.0, help="scale of guidance")
    add("--temperature", type=float, default=1.0, help="of the head")
    add("--minutes", type=float, default=float("inf"), help="after so many no further way is begun")
    add("--device", default=str(accelerator or "cpu"), help="where to draw")
    run(parser.parse_args())


if __name__ == "__main__":
    run_command(main)
