"""Results that wait until they are read, so that a step learns which of its rows are wanted.

tensor  `LateTensor`, which a transformed step returns; `resolved` gives the values
rows    which rows an index reads
"""

from .tensor import LateTensor, resolved

__all__ = ["LateTensor", "resolved"]
