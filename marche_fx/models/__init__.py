"""The models that come along, all written as their users would write them, their trainings and their judges.

mar, head, diffusion   the model, its diffusion head, the noise schedule      presets    its sizes
checkpoint, bundled    weights from files, and those that come along          dataset    labelled images
train, judge           training; the classifier that judges images            fashion    garments
generation, drift      its own loop on draws made beforehand; drift of it     demo       ``marche-fx demo``
text                   a masked-diffusion text model and all its own          tokens     garments as discrete tokens
emoji                  colour emoji, a task on which decoding steps matter    optimizer  Muon with AdamW
transformer            the blocks of text and tokens                          timed_training  for so many seconds
parallel_decoding      MaskGIT's loop                                         devices    that a command may name
training_state         what a training that was stopped goes on from          sampling   what a loop is refused
"""

from .bundled import (
    load_emoji_autoencoder,
    load_emoji_judge,
    load_emoji_kinds,
    load_emoji_mar,
    load_fashion_mar,
    load_garment_tokens,
    load_judge,
    load_text_model,
    load_tokenizer,
)
from .checkpoint import load_checkpoint, read_checkpoint, save_weights
from .fashion import CLASSES, Fashion, load_fashion
from .judge import Judge, frechet_distance
from .mar import MAR
from .presets import mar_base, mar_emoji, mar_fashion, mar_huge, mar_large

__all__ = [
    "CLASSES",
    "MAR",
    "Fashion",
    "Judge",
    "frechet_distance",
    "load_checkpoint",
    "load_emoji_autoencoder",
    "load_emoji_judge",
    "load_emoji_kinds",
    "load_emoji_mar",
    "load_fashion",
    "load_fashion_mar",
    "load_garment_tokens",
    "load_judge",
    "load_text_model",
    "load_tokenizer",
    "mar_base",
    "mar_emoji",
    "mar_fashion",
    "mar_huge",
    "mar_large",
    "read_checkpoint",
    "save_weights",
]
