"""``marche-fx evaluate``: what refresh policies cost in quality, as figures with intervals.

run         the evaluation: takes `settings` and `points`, makes `rows` from `metrics`; `folder` keeps it resumable
garments    the generation that `marche-fx tune` tunes
generation  images of a point on `draws` made beforehand, in `steps`; `progress` while it runs
frechet_judge   the Frechet distance for `marche_fx.tune_recipe`
drift       teacher-forced drift instead of images; `equal_flops` compares points at one cost
tables, plots, labels   what is printed and drawn
tasks       what is drawn and judged, garments or emoji; `points` and `heads` are words for ways to draw it
fronts      ``python -m marche_fx.evaluate.fronts``: quality against the cost of a whole generation
study       what studies of decoding loops share: variants decoded in turns and compared with the original
text        ``marche-fx study-text``: caches compared on the bundled text model
tokens      ``marche-fx study-tokens``: the same on the bundled model of garments as tokens
"""

from ..tuning.intervals import Interval, Spread
from .frechet_judge import FrechetJudge
from .metrics import Manifold, frechet, precision_and_recall
from .points import Point, parse_point, parse_points, recipe_point
from .rows import DriftRow, Evaluation, Row
from .run import evaluate, evaluate_drift
from .settings import DriftSettings, Settings

__all__ = [
    "DriftRow",
    "DriftSettings",
    "Evaluation",
    "FrechetJudge",
    "Interval",
    "Manifold",
    "Point",
    "Row",
    "Settings",
    "Spread",
    "evaluate",
    "evaluate_drift",
    "frechet",
    "parse_point",
    "parse_points",
    "precision_and_recall",
    "recipe_point",
]
