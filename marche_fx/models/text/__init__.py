"""A masked-diffusion language model, its training, its decoding, and the judges of what it writes.

model                    the transformer               corpus, vocabulary  a text as pieces of words
training, masking        LLaDA's objective             watching, command   ``marche-fx train-text``
optimizer                Muon with AdamW               likelihood, ngram   the model as a judge, and another one
decoding                 LLaDA's loop and MaskGIT's
"""

from .corpus import Corpus, encode, read_lines, split_lines
from .decoding import generate, generate_in_parallel
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
