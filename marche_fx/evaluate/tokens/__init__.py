"""``marche-fx study-tokens``: what caching costs the bundled model of garments as tokens, variant by variant.

run, command   the study: decodes garments of all classes in `loops` under `variants`
figures        a row for each loop and variant, from the lines and what the judge sees in the images
tables, plots  what is printed and drawn
"""

from .figures import TokenRow
from .loops import LOOPS, GarmentLoop
from .run import study_tokens
from .variants import VARIANTS

__all__ = ["LOOPS", "VARIANTS", "GarmentLoop", "TokenRow", "study_tokens"]
