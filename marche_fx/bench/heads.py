"""What draws the tokens of a variant from the transformer's vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

from torch import Tensor

from ..api.denoising import decoding_at
from ..api.transform import transform
from ..denoising import Denoising
from ..marks import ATTRIBUTE
from ..models import MAR
from ..rivals import RIVALS, with_sampler
from .variants import HeadChoice, Variant


@dataclass(frozen=True)
class HeadKind:
    """Equal for variants whose heads take the same time.

    Attributes:
        is_fast: whether its products are those of marche_fx.
        steps: decoding steps between which it runs. is_guided_in_part: as in `Variant`.
    """

    choice: HeadChoice
    is_fast: bool
    steps: int
    is_guided_in_part: bool

    @classmethod
    def of(cls, variant: Variant, steps: int, denoising: Denoising | None) -> HeadKind:
        """The head of a variant in so many decoding steps.

        Args:
            denoising: of transformed models that have none of their own.
        """
        choice = variant.head
        if not variant.is_original and choice.rival is None and choice.denoising is None:
            choice = replace(choice, denoising=denoising)
        return cls(choice, variant.compile and not variant.is_original, steps, variant.is_guided_in_part)


Draw = Callable[..., Tensor]
"""``(z [R, D], cfg=) -> [R, C]``, as `DiffLoss.sample`."""


class TokenHead:
    """The head of a MAR, of a kind."""

    def __init__(self, model: MAR, kind: HeadKind) -> None:
        choice = kind.choice
        is_own = not kind.is_fast and choice.denoising is None and choice.reuse is None
        self.model = (
            model
            if is_own
            else transform(model, denoising=choice.denoising, reuse=choice.reuse, compile=kind.is_fast, verify=False)
        )
        self.sampler_at = None if choice.rival is None else RIVALS[choice.rival](model.diffloss.gen_diffusion)

    @contextmanager
    def at(self, step: int, of: int) -> Iterator[Draw]:
        """What it draws by in decoding step ``step`` of ``of``; to be used inside."""
        if self.sampler_at is not None:
            yield with_sampler(self.model.diffloss, self.sampler_at(step, of)).sample
            return
        with decoding_at(self.model, step, of) if hasattr(self.model, ATTRIBUTE) else nullcontext():
            yield self.model.diffloss.sample
