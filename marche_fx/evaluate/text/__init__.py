"""``marche-fx study-text``: what caching costs the bundled text model, variant by variant.

run, command   the study: decodes `prompts` in `loops` under `variants`
figures        a row for each loop and variant, from the lines and what `judges` say of the answers
tables         what is printed
"""

from .figures import TextRow
from .loops import LOOPS, Loop
from .run import TextSettings, study_text
from .variants import VARIANTS

__all__ = ["LOOPS", "VARIANTS", "Loop", "TextRow", "TextSettings", "study_text"]
