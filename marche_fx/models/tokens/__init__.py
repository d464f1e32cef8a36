"""Garments as discrete tokens: a tokenizer, a class-conditional MaskGIT, its loop, and the training of both.

tokenizer            images to codes and back         model      the transformer
decoding             MaskGIT's loop, with guidance    garments   both models as one file holds them
training             what both learn from             command, __main__   ``python -m marche_fx.models.tokens``
choosing             which decoding the judge likes best
"""

from .decoding import Decoding, generate_codes, guided
from .garments import TokenGarments
from .model import MaskGIT
from .tokenizer import ImageTokenizer

__all__ = ["Decoding", "ImageTokenizer", "MaskGIT", "TokenGarments", "generate_codes", "guided"]
