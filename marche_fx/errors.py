"""Every error that marche_fx raises on purpose, so that a user can catch one class."""

from __future__ import annotations

import torch


class MarcheError(Exception):
    """Base of all errors of marche_fx."""


class UnsupportedModelError(MarcheError):
    """The model has nothing to cache, or its state forbids it; the message names the operator and where it stands."""


class CaptureError(MarcheError):
    """``torch.export`` could not capture the step."""


class GraphError(MarcheError):
    """A pass met a graph that contradicts its assumptions; the message names the node."""


class RuleError(MarcheError):
    """An operator's rule is malformed, or is not what the operator does; the message quotes it."""


class EquivalenceError(MarcheError):
    """The rewritten step and the original differ beyond the tolerance of their dtype."""


class ArgumentError(MarcheError, ValueError):
    """An argument has the wrong type, shape or range."""


class OutOfMemoryError(MarcheError, torch.OutOfMemoryError):
    """No memory was left for a step; the caches of its session are freed, and the message says what they took."""


class PolicyError(MarcheError):
    """A refresh policy answered with something that cannot be done."""


class RecipeError(MarcheError):
    """A recipe does not fit: it is of another model, or a loop cannot be told what it says."""


class CheckpointError(MarcheError):
    """A checkpoint is damaged, unsafe or of another model."""


class DatasetError(MarcheError):
    """A data set's files are missing, damaged or swapped."""


class TrainingError(MarcheError):
    """Training cannot start or continue from the given folder."""


class StorageError(MarcheError, OSError):
    """A file cannot be written: the disk is full, or the folder forbids it or is gone; older files are as they were."""


class TuningError(MarcheError):
    """No refresh policy, or no recipe, meets the bound that was asked for."""


class SamplingError(MarcheError):
    """A loop did not return the images that it was asked for, or they cannot be written where they were to go."""


NO_MEMORY = "can't allocate memory"
"""What PyTorch says on the CPU, in a `RuntimeError`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has no memory left."""
    is_named = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_named or (isinstance(error, RuntimeError) and NO_MEMORY in str(error))
