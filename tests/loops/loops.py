"""Loops in the manner of public ones: what they read of a step's results, and how.

Each is a generator: it is sent nothing, and yields what it read in each step, so that the original's and the
transformed model's can be compared on the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.loops import models
from tests.loops.models import MASK, WORDS, N

Steps = Iterator[Tensor]
STEPS, EACH = 12, 4


def words(samples: int = 2, tokens: int = N) -> Tensor:
    """Words of which all but the first eight are masked."""
    ids = torch.randint(0, MASK, (samples, tokens), generator=torch.Generator().manual_seed(1))
    ids[:, 8:] = MASK
    return ids


def reveal(ids: Tensor, step: int) -> Tensor:
    """The same with the next words unmasked."""
    ids, start = ids.clone(), 8 + EACH * step
    new = torch.randint(0, MASK, (len(ids), EACH), generator=torch.Generator().manual_seed(step))
    ids[:, start : start + EACH] = new
    return ids


def masked_rows(of: Callable[[Tensor, Tensor], Tensor], **options: Any) -> Callable[[Any], Steps]:
    """A loop that reads what ``of`` makes of the logits and the masked tokens."""

    def loop(model: Any) -> Steps:
        ids = words(**options)
        for step in range(STEPS):
            yield of(model(ids), ids == MASK)
            ids = reveal(ids, step)

    return loop


def next_rows(model: Any) -> Steps:
    """As MAR does: the rows of the tokens that come next, and no others."""
    ids = words()
    for step in range(STEPS):
        z = model(ids)
        following = reveal(ids, step)
        yield z[(ids == MASK) & (following != MASK)]
        ids = following


def blocks(model: Any) -> Steps:
    """Block after block, each read as a slice."""
    ids = words()
    for step in range(STEPS):
        start = 8 + 16 * (EACH * step // 16)
        yield model(ids)[:, start : start + 16].softmax(-1)
        ids = reveal(ids, step)


def doubled(model: Any) -> Steps:
    """Guidance by a doubled batch."""
    ids = words()
    for step in range(STEPS):
        some, none = model(torch.cat([ids, ids.where(ids == MASK, 3)])).chunk(2)
        yield (some + 2 * (some - none))[ids == MASK]
        ids = reveal(ids, step)


def doubled_by_rows(model: Any) -> Steps:
    """The same, reading the rows of both halves."""
    ids = words()
    for step in range(STEPS):
        some, none = model(torch.cat([ids, ids.where(ids == MASK, 3)])).chunk(2)
        rows = (ids == MASK) & (reveal(ids, step) != MASK)
        yield some[rows] + 2 * (some[rows] - none[rows])
        ids = reveal(ids, step)


def two_calls(model: Any) -> Steps:
    """Guidance by two calls a step."""
    ids, vectors = words(), torch.randn(2, 2, models.D, generator=torch.Generator().manual_seed(2))
    for step in range(STEPS):
        rows = (ids == MASK) & (reveal(ids, step) != MASK)
        some, none = model(ids, vectors[0])[rows], model(ids, vectors[1])[rows]
        yield some + 2 * (some - none)
        ids = reveal(ids, step)


def sample_by_sample(model: Any) -> Steps:
    ids = words()
    for step in range(STEPS):
        z, rows = model(ids), (ids == MASK) & (reveal(ids, step) != MASK)
        yield torch.cat([z[number][rows[number]] for number in range(len(ids))])
        ids = reveal(ids, step)


def forbidden_word(model: Any) -> Steps:
    ids = words()
    for step in range(STEPS):
        z = model(ids)
        z[..., 5] = -torch.inf
        yield z[(ids == MASK) & (reveal(ids, step) != MASK)].softmax(-1)
        ids = reveal(ids, step)


def timed(model: Any) -> Steps:
    ids = words()
    for step in range(STEPS):
        time = torch.full((len(ids),), step / STEPS)
        yield model(ids, time)[(ids == MASK) & (reveal(ids, step) != MASK)]
        ids = reveal(ids, step)


def far_timed(model: Any) -> Steps:
    """Under a time that moves far in every step."""
    ids = words()
    for step in range(STEPS):
        yield model(ids, torch.full((len(ids),), 10.0 * step))[(ids == MASK) & (reveal(ids, step) != MASK)]
        ids = reveal(ids, step)


def told_before(model: Any) -> Steps:
    ids, said = words(), torch.zeros(2, N, WORDS)
    for step in range(STEPS):
        said = model(ids, said).softmax(-1)
        yield said
        ids = reveal(ids, step)


def by_rows(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any], Steps]:
    """A loop that reads the rows of the tokens that come next, in a spelling of its own."""

    def loop(model: Any) -> Steps:
        ids = words()
        for step in range(STEPS):
            following = reveal(ids, step)
            yield of(model(ids), (ids == MASK) & (following != MASK))
            ids = following

    return loop


def growing(model: Any) -> Steps:
    """A sequence that grows by what was decoded."""
    ids = words(tokens=24)
    for step in range(STEPS):
        yield model(ids)[:, -EACH:]
        ids = torch.cat([ids[:, :-EACH], torch.full((2, EACH), step), ids[:, -EACH:]], 1)


def too_late(model: Any) -> Steps:
    """Rows of a step that are read after the next one was called."""
    ids, before = words(), None
    for step in range(STEPS):
        z, rows = model(ids), slice(8 + EACH * step, 8 + EACH * (step + 1))
        if before is not None:
            yield before[:, rows]
        before = z
        ids = reveal(ids, step)


def semi_autoregressive(model: Any) -> Steps:
    """Block after block, by confidence, as LLaDA does: everything over all rows, and then the masks."""
    ids = words()
    for step in range(STEPS):
        masked, end = ids == MASK, 8 + 16 * (EACH * step // 16 + 1)
        logits = model(ids)
        noisy = logits.double().exp() / -torch.rand_like(logits, dtype=torch.float64).log()
        said = noisy.argmax(-1)
        confidence = logits.double().softmax(-1).gather(-1, said[..., None]).squeeze(-1)
        confidence[:, end:] = -torch.inf
        said = torch.where(masked, said, ids)
        confidence = torch.where(masked, confidence, -torch.inf)
        chosen = torch.zeros_like(said, dtype=torch.bool)
        for sample, own in enumerate(confidence):
            chosen[sample, own.topk(EACH).indices] = True
        yield torch.where(confidence > -torch.inf, confidence, 0)
        assert bool((said[chosen] < WORDS).all())
        ids = reveal(ids, step)


def masks_before_calls(model: Any) -> Steps:
    """Ids that late words are put into, and of which the next step first asks which are masked."""
    ids, place = words(), torch.arange(N)
    for step in range(STEPS):
        masked = ids == MASK
        said = torch.where(masked, model(ids).argmax(-1), ids)
        here = (place >= 8 + EACH * step) & (place < 12 + EACH * step)
        ids = torch.where(here, said, ids)
        yield ids.double()


def drawn_words(model: Any) -> Steps:
    """Words drawn by `torch.multinomial` for all tokens, of which those in a block are kept."""
    ids = words()
    for step in range(STEPS):
        start = 8 + EACH * step
        shares = (model(ids) / 0.9).softmax(-1)
        said = torch.multinomial(shares.view(-1, shares.shape[-1]), 1).view(ids.shape)
        here = torch.zeros_like(ids, dtype=torch.bool)
        here[:, start : start + EACH] = True
        yield torch.where(here, shares.gather(-1, said[..., None])[..., 0], 0)
        assert torch.where(here, said, ids).shape == ids.shape
        ids = reveal(ids, step)


def shifted(model: Any) -> Steps:
    """A model of the next token: the logits of a token are those of the one before it."""
    ids = words()
    for step in range(STEPS):
        logits = model(ids)
        logits = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
        rows = (ids == MASK) & (reveal(ids, step) != MASK)
        yield logits[rows].softmax(-1)
        ids = reveal(ids, step)


def forbidden_behind(model: Any) -> Steps:
    """Words and rows that are written over before anything is read."""
    ids = words()
    for step in range(STEPS):
        end = 8 + EACH * (step + 1)
        logits = model(ids).clone()
        logits[..., 5] = -torch.inf
        best = logits.amax(-1)
        best[:, end:] = 0
        best[ids != MASK] = 0
        yield best
        ids = reveal(ids, step)


def every_other(model: Any) -> Steps:
    """Only every other result is read."""
    ids = words()
    for step in range(STEPS):
        z = model(ids)
        if step % 2:
            yield z[:, 8 + EACH * step : 12 + EACH * step]
        ids = reveal(ids, step)


def by_child(model: Any) -> Steps:
    ids = words()
    for step in range(STEPS):
        yield model.net(ids)[:, 8 + EACH * step : 12 + EACH * step]
        ids = reveal(ids, step)


def by_method(model: Any) -> Steps:
    ids = words()
    for step in range(STEPS):
        yield model.predict(ids)[:, 8 + EACH * step : 12 + EACH * step]
        ids = reveal(ids, step)


@dataclass(frozen=True)
class Entry:
    """A loop and what is to become of it when nothing is passed.

    Attributes:
        told: a part of what the user must be told; empty where it gains what it can and nothing is to be said.
        also: a part of what else may be said. Anything else is a false alarm.
    """

    name: str
    model: Callable[[], nn.Module]
    loop: Callable[[Any], Steps]
    told: str = ""
    also: str = ""
    options: dict[str, Any] = field(default_factory=dict)


WHOLE = "read as a whole"

ENTRIES = (
    Entry("rows that come next", models.Words, next_rows),
    Entry("all masked rows", models.Words, masked_rows(lambda z, rows: z[rows])),
    Entry("one sample", models.Words, masked_rows(lambda z, rows: z[rows], samples=1)),
    Entry("blocks as slices", models.Words, blocks),
    Entry(
        "softmax of all, then where",
        models.Words,
        masked_rows(lambda z, rows: z.softmax(-1).where(rows[..., None], 0)),
    ),
    Entry("noise on all", models.Words, masked_rows(lambda z, rows: (z + 0.1).argmax(-1).where(rows, 0).float())),
    Entry("cast, then rows", models.Words, by_rows(lambda z, rows: z.double()[rows])),
    Entry("guidance by a doubled batch", models.Words, doubled),
    Entry("blocks by confidence", models.Words, semi_autoregressive),
    Entry("masks before calls", models.Words, masks_before_calls),
    Entry("words drawn for all", models.Words, drawn_words),
    Entry("shifted by one", models.Words, shifted),
    Entry("written over", models.Words, forbidden_behind),
    Entry("guidance by rows of halves", models.Words, doubled_by_rows),
    Entry("guidance by two calls", models.Conditioned, two_calls),
    Entry("guidance inside", models.GuidedInside, next_rows),
    Entry("some words only", models.Words, by_rows(lambda z, rows: z[..., :18][rows])),
    Entry("samples and rows joined", models.Words, by_rows(lambda z, rows: z.view(-1, WORDS)[rows.view(-1)])),
    Entry("all but the first row", models.Words, by_rows(lambda z, rows: z[:, 1:][rows[:, 1:]])),
    Entry("sample by sample", models.Words, sample_by_sample),
    Entry("a forbidden word", models.Words, forbidden_word),
    Entry("several results", models.TwoResults, by_rows(lambda z, rows: z[0][rows])),
    Entry("layers averaged", models.Averaged, next_rows),
    Entry(
        "codebooks before tokens",
        models.Codebooks,
        by_rows(lambda z, rows: torch.stack([z[:, 0][rows], z[:, 1][rows]])),
    ),
    Entry("codebooks behind tokens", lambda: models.Codebooks((0, 2, 1, 3)), by_rows(lambda z, rows: z[rows])),
    Entry("channels first", models.ChannelsFirst, by_rows(lambda z, rows: z.transpose(1, 2)[rows])),
    Entry("a picture", models.Picture, by_rows(lambda z, rows: z.flatten(2).transpose(1, 2)[rows])),
    Entry("pixels", models.Unpatched, by_rows(lambda z, rows: z[:, :, :4, :8])),
    Entry("shuffled and put back", models.Shuffled, next_rows),
    Entry("a key for nobody", models.NullKey, next_rows),
    Entry("a time that moves", models.Timed, timed),
    Entry("a time that moves far", models.Timed, far_timed, "'time'"),
    Entry("a time, allowed to move", models.Timed, timed, options={"tolerance": {"time": 1.0}}),
    Entry("told what it said before", models.SelfConditioned, told_before, WHOLE),
    Entry("a growing sequence", models.Words, growing),
    Entry("rows read too late", models.Words, too_late, "had been computed"),
    Entry("every other result", models.Words, every_other),
    Entry("the loop calls a child", models.Parent, by_child, "model.net = marche_fx.transform(model.net)"),
    Entry("the loop calls a method", models.Parent, by_method, "step='predict'"),
    Entry("the same, named", models.Parent, by_method, options={"step": "predict"}),
    Entry(
        "a query",
        models.Words,
        masked_rows(lambda z, rows: z.softmax(-1).where(rows[..., None], 0)),
        options={"query": lambda ids: ids == MASK},
    ),
)
