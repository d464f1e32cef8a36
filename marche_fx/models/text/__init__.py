"""A masked-diffusion language model, its training, its decoding, and the judges of what it writes.

model                    the transformer               corpus, vocabulary  a text as pieces of words
training, masking        LLaDA's objective             batches, recipe     what a step sees, what a run is done with
averaging                the average of weights        watching, samples   what is printed, kept and written
decoding                 LLaDA's loop                  likelihood, ngram   the model as a judge, and another one
command                  ``marche-fx train-text``
"""

from ..parallel_decoding import generate_in_parallel
from .corpus import Corpus, encode, read_lines, split_lines
from .decoding import generate
from .likelihood import bits_per_byte, likelihood_bound, pseudo_likelihood
from .model import TextDiffusion
from .ngram import Ngrams, distinct

__all__ = [
    "Corpus",
    "Ngrams",
    "TextDiffusion",
    "bits_per_byte",
    "distinct",
    "encode",
    "generate",
    "generate_in_parallel",
    "likelihood_bound",
    "pseudo_likelihood",
    "read_lines",
    "split_lines",
]
