"""Which image shows what."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ArgumentError

BALANCED = "balanced"

Labels = str | Sequence[int] | Tensor | None
"""``"balanced"``, one for each image, or None."""


def labels_of(labels: Labels, count: int, total: int, classes: int | None) -> Tensor | None:
    """Int64 ``[total]``, the labels of ``count`` images and of those that fill up the last share.

    Raises:
        ArgumentError: they are not as many as the images, or there is no such class.
    """
    if labels is None:
        return None
    if isinstance(labels, str):
        if labels != BALANCED:
            raise ArgumentError(f"labels must be {BALANCED!r}, a label for each image, or None, got {labels!r}")
        if classes is None:
            raise ArgumentError(
                f"labels={BALANCED!r} need the number of classes, and the model has no num_classes that says it: pass "
                "classes="
            )
        return torch.arange(total) % classes
    try:
        found = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"labels must be whole numbers, got {labels!r}") from error
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ArgumentError(f"labels must be whole numbers, got {found.dtype}")
    if found.shape != (count,):
        raise ArgumentError(f"there must be a label for each of {count} images, got the shape {list(found.shape)}")
    least, most = int(found.min()), int(found.max())
    if least < 0 or (classes is not None and most >= classes):
        known = "" if classes is None else f", of which there are {classes}"
        raise ArgumentError(f"labels are numbers of classes from 0 on{known}; got {least} to {most}")
    return found.long().repeat(-(-total // count))[:total]


def classes_of(model: nn.Module, given: int | None) -> int | None:
    """The number of classes that is given, or else what the model says as ``num_classes``.

    Raises:
        ArgumentError: it is no number of classes.
    """
    found = getattr(model, "num_classes", None) if given is None else given
    if given is not None and (type(given) is not int or given < 1):
        raise ArgumentError(f"classes must be a whole number of at least 1, got {given!r}")
    return found if isinstance(found, int) and found > 0 else None
