"""In what calls of one step are of different kinds, each of which costs a capture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from .captured import Capture


def differences(captures: Sequence[tuple[Capture, Sequence[str]]]) -> tuple[list[str], list[str], list[str]]:
    """What is not the same in captures of a step.

    Args:
        captures: each with the `leaf_names` of its arguments.

    Returns:
        Arguments that have other shapes; those that are, or hold, other plain values; and lines of the model,
        ``model.py:41``, that ask for values of tensors and are told others.
    """
    shapes, values, answers = [], [], []
    for own, names in captures:
        named = list(zip(names, (each.value for each in own.inputs)))
        shapes.append(grouped((name, sizes_of(each)) for name, each in named if isinstance(each, Tensor)))
        values.append(grouped((name, each) for name, each in named if not isinstance(each, Tensor)))
        asked = own.branches
        answers.append({} if asked is None else grouped(zip(asked.lines, asked.answers)))
    plain = varying(values)
    return [name for name in varying(shapes) if name not in plain], plain, varying(answers)


def sizes_of(tensor: Tensor) -> list[int | None]:
    """The sizes of a tensor; None for those that values decide, as of the tokens that are kept."""
    return [size if isinstance(size, int) else None for size in tensor.shape]


def grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    """All that stands under a name, in order."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def varying(kinds: Sequence[dict[str, list[Any]]]) -> list[str]:
    """Names under which not all of them have the same."""
    names = dict.fromkeys(name for own in kinds for name in own)
    return [name for name in names if any(own.get(name) != kinds[0].get(name) for own in kinds)]
