"""``marche-fx study-text``: what caching costs the bundled text model, variant by variant.

run, command   the study: decodes (`generation`) `prompts` in `loops` under `variants`, resumably in `lines`
variants       names of policies, queries and fewer steps; `schedules` has those of others as policies
figures        a row for each loop and variant, from the lines and what `judges` say of the answers
tables, plots  what is printed and drawn
"""

from .figures import TextRow
from .loops import LOOPS, Loop
from .run import TextSettings, study_text
from .schedules import DualCache, MaxLogitCache, NewestRefresh, ValueCache
from .variants import VARIANTS, Variant

__all__ = [
    "LOOPS",
    "VARIANTS",
    "DualCache",
    "Loop",
    "MaxLogitCache",
    "NewestRefresh",
    "TextRow",
    "TextSettings",
    "ValueCache",
    "Variant",
    "study_text",
]
