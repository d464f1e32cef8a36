"""Models that nobody here wrote, small and with random weights; ``python -m tests.zoo`` prints a row for each."""

from . import from_diffusers, from_torch, from_transformers, from_x_transformers

ENTRIES = (*from_transformers.ENTRIES, *from_diffusers.ENTRIES, *from_x_transformers.ENTRIES, *from_torch.ENTRIES)

REFUSED = from_transformers.REFUSED
