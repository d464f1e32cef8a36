"""``python -m marche_fx`` is ``marche-fx``."""

from .cli import run

run()
