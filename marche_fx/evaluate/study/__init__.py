"""What studies of decoding loops share: variants decoded in turns, resumably, and compared with the original.

loops, variants      what is decoded, and how; `schedules` has those of others as policies; `names` finds both
generation, lines    a batch decoded under a variant, and what is kept of it
run, figures         all batches of all variants; what they make of a variant's row
tables, plots        what is printed and drawn, of text and of images
"""

from .figures import StudyRow
from .loops import Loop, Query
from .run import StudySettings
from .schedules import DualCache, MaxLogitCache, NewestRefresh, ValueCache
from .variants import ORIGINAL, Variant

__all__ = [
    "ORIGINAL",
    "DualCache",
    "Loop",
    "MaxLogitCache",
    "NewestRefresh",
    "Query",
    "StudyRow",
    "StudySettings",
    "ValueCache",
    "Variant",
]
