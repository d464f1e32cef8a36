"""docs/quality.md: its tables are what its JSON holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from marche_fx.evaluate import DriftRow, parse_points
from marche_fx.evaluate.equal_flops import drift_over_others
from marche_fx.refresh.presets import PRESETS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "quality.md").read_text(encoding="utf-8")

SETTINGS = {
    "32 steps, guidance 3": "drift-32-guided",
    "32 steps, no guidance": "drift-32-unguided",
    "64 steps, guidance 3": "drift-64-guided",
    "64 steps, no guidance": "drift-64-unguided",
}
SEEDS_8 = {
    "32 steps, guidance 3": "drift-32-guided-seed-8",
    "32 steps, no guidance": "drift-32-unguided-seed-8",
}
SHARES = (0.02, 0.05, 0.1, 0.15, 0.25, 0.3)
PERIODS = {"periodic": (2, 3, 4, 5, 6, 8, 12, 16, 24), "interleaved": (2, 3, 4, 6, 8, 16)}
BY_SHARE = ("selective", "oldest", "neighbour", "random", "marche", "drift")
OTHERS = ("marche", "random", "oldest", "periodic", "neighbour", "interleaved", "drift")
TARGET = 0.7


def found(name: str) -> dict[str, Any]:
    return json.loads((DOCS / "quality" / f"{name}.json").read_text())


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def ratio_lines(files: dict[str, str]) -> list[str]:
    """Drift of the default over that of the others at equal FLOPs; what meets the target is bold."""
    lines = [line("setting", "share", *OTHERS), line(*["---"] * (2 + len(OTHERS)))]
    for setting, name in files.items():
        ratios = found(name)["drift_over_others"]
        for share in (0.05, 0.1, 0.25):
            own = [ratios[f"selective:{share}"][kind] for kind in OTHERS]
            cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in own]
            bold = [f"**{cell}**" if ratio is not None and ratio <= TARGET else cell for ratio, cell in zip(own, cells)]
            lines.append(line(setting, f"{share:.0%}", *bold))
    return lines


def figure_lines(name: str) -> list[str]:
    """Drift and FLOPs of every policy with a share; then of nothing, and of those with full steps in between."""
    rows = {row["policy"]: row for row in found(name)["rows"]}

    def cell(word: str) -> str:
        return f"{rows[word]['drift']:.4f} at {rows[word]['flops_ratio']:.1%}" if word in rows else ""

    lines = [line("share", *BY_SHARE), line(*["---"] * (1 + len(BY_SHARE)))]
    lines += [line(f"{share:.0%}", *(cell(f"{kind}:{share}") for kind in BY_SHARE)) for share in SHARES]
    lines += ["", f"`nothing`: {cell('nothing')}.", ""]
    lines += [line("full steps", *(str(period) for period in PERIODS["periodic"]))]
    lines += [line(*["---"] * (1 + len(PERIODS["periodic"])))]
    lines += [line(kind, *(cell(f"{kind}:{period}") for period in PERIODS["periodic"])) for kind in PERIODS]
    return lines


def image_lines() -> list[str]:
    """FLOPs, Frechet distance, its difference from the exact model's on the same seeds, labels of every point."""
    content = found("images-32-guided")
    heads = ("point", "FLOPs", "Frechet distance", "over exact, same seeds", "labels", "precision", "recall", "drift")
    lines = [line(*heads), line(*["---"] * len(heads))]
    for row in content["rows"]:
        over = content["differences"][row["policy"]].get("exact")
        lines.append(
            line(
                f"`{row['policy']}`",
                f"{row['flops_ratio']:.1%}",
                f"{row['frechet']:.2f} ({row['frechet_low']:.2f} to {row['frechet_high']:.2f})",
                "" if over is None else f"{over['estimate']:+.2f} ({over['low']:+.2f} to {over['high']:+.2f})",
                f"{row['label_accuracy']:.1%}",
                f"{row['precision']:.2f}",
                f"{row['recall']:.2f}",
                f"{row['drift']:.3f}",
            )
        )
    return lines


def preset_lines() -> list[str]:
    """What the presets cost, of the points that are the same policies."""
    points = {Path(row["policy"]).name: row for row in found("images-32-guided")["rows"]}
    over = {Path(name).name: own for name, own in found("images-32-guided")["differences"].items()}
    lines = []
    for name, point in {"exact": "exact", "balanced": "selective:0.15", "fast": "fast.json"}.items():
        row, policy = points[point], str(PRESETS[name])
        own = over[point].get("exact")
        cells = [f"`{name}`", f"`{policy}`", f"{row['flops_ratio']:.1%}", f"{row['drift']:.3f}".replace("0.000", "0")]
        cells += [f"{row['frechet']:.2f}", "" if own is None else f"{own['low']:+.2f} to {own['high']:+.2f}"]
        lines.append(line(*cells, f"{row['label_accuracy']:.1%}"))
    return lines


def test_the_presets_are_told_with_their_figures() -> None:
    assert "\n".join(preset_lines()) in (DOCS / "policies.md").read_text(encoding="utf-8")


def test_the_page_has_the_figures_of_the_images() -> None:
    assert "\n".join(image_lines()) in PAGE
    assert all(row["images"] == 2000 for row in found("images-32-guided")["rows"])


@pytest.mark.parametrize("files", [SETTINGS, SEEDS_8], ids=["the study", "other seeds"])
def test_the_page_compares_as_the_results_do(files: dict[str, str]) -> None:
    assert "\n".join(ratio_lines(files)) in PAGE


@pytest.mark.parametrize(("setting", "name"), SETTINGS.items())
def test_the_page_has_the_figures_and_the_picture_of_each_setting(setting: str, name: str) -> None:
    section = PAGE.partition(f"#### {setting}\n")[2].partition("\n#")[0]
    assert "\n".join(figure_lines(name)) in section
    assert f"(quality/{name}.png)" in section
    assert f"(quality/{name}.json)" in section


@pytest.mark.parametrize("name", [*SETTINGS.values(), *SEEDS_8.values()])
def test_the_results_are_of_the_policies_of_the_command_and_compare_as_the_code_does(name: str) -> None:
    content = found(name)
    rows = [DriftRow(**row) for row in content["rows"]]
    words = [row.policy for row in rows]
    by_share = {f"{kind}:{share}" for share in SHARES for kind in BY_SHARE}
    assert {"nothing", *by_share} <= set(words)
    assert set(words) - {"nothing", *by_share} == {
        f"{kind}:{period}" for kind, periods in PERIODS.items() for period in periods
    }
    again = drift_over_others(parse_points(words), rows)
    assert again.keys() == content["drift_over_others"].keys()
    for policy, ratios in again.items():
        assert ratios == pytest.approx(content["drift_over_others"][policy])


def test_every_file_that_the_page_names_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) > 10
    for link in links:
        assert link.startswith("https://") or (DOCS / link).exists(), link
