"""What makes a whole generation cheaper, chosen together and kept as one object.

recipe     `Recipe`: refresh, denoising, reuse, decoding steps, order and guidance
structure  for which model it was tuned
loop       what a decoding loop is told of it
saving     JSON, checked
presets    those that come along, in `garments/` and `emoji/`, by the model that they are for
"""

from .presets import preset_for
from .recipe import Recipe
from .saving import load_recipe, recipe_from_dict, recipe_to_dict, save_recipe
from .structure import structure_of

__all__ = [
    "Recipe",
    "load_recipe",
    "preset_for",
    "recipe_from_dict",
    "recipe_to_dict",
    "save_recipe",
    "structure_of",
]
