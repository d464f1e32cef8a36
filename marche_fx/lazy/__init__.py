"""Results that wait until they are read, so that a step learns which of its rows are wanted.

tensor  `LateTensor`, which a transformed step returns; `resolved` gives the values
value   the result behind late tensors, with what was written into it
views   functions under which a late result stays late      writes  functions that write into one
rows    which rows a view has, and which of them an index reads
"""

from .tensor import LateTensor, resolved

__all__ = ["LateTensor", "resolved"]
