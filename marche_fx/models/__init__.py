"""MAR, its trained weights for garments, and the judge of what it generates; a masked-diffusion text model; a MaskGIT.

mar, head, diffusion   the model, its diffusion head, the noise schedule      presets  its sizes
checkpoint, bundled    weights from files, and those that come along          fashion  the data set
train, judge           training; the classifier that judges garments
generation, drift      its own loop on draws made beforehand; drift of it     demo     ``marche-fx demo``
training_state         what a training that was stopped goes on from         text     the text model and all its own
timed_training         training for so many seconds                          tokens   garments as discrete tokens
transformer            the blocks of text and tokens                         optimizer  Muon with AdamW
parallel_decoding      MaskGIT's loop
"""

from .bundled import load_fashion_mar, load_judge, load_text_model, load_tokenizer
from .checkpoint import load_checkpoint, read_checkpoint, save_weights
from .fashion import CLASSES, Fashion, load_fashion
from .judge import Judge, frechet_distance
from .mar import MAR
from .presets import mar_base, mar_fashion, mar_huge, mar_large

__all__ = [
    "CLASSES",
    "MAR",
    "Fashion",
    "Judge",
    "frechet_distance",
    "load_checkpoint",
    "load_fashion",
    "load_fashion_mar",
    "load_judge",
    "load_text_model",
    "load_tokenizer",
    "mar_base",
    "mar_fashion",
    "mar_huge",
    "mar_large",
    "read_checkpoint",
    "save_weights",
]
