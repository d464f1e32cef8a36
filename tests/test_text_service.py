"""The example of a server: a session for each reader, whoever else reads and whoever leaves."""

from __future__ import annotations

import asyncio
import gc

import pytest
import torch
from torch import Tensor

import marche_fx
from examples.text_service import TextService
from marche_fx import SelectiveRefresh
from marche_fx.models.text import TextDiffusion
from marche_fx.runtime.open_sessions import IN_GENERATORS, OPEN
from marche_fx.runtime.session import Session

REQUESTS = ((40, 10), (56, 8), (40, 20))
"""Lengths and steps."""


def service() -> TextService:
    torch.manual_seed(0)
    model = TextDiffusion(50, width=32, depth=2, heads=2, hidden=48).eval()
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1), compile=False)
    return TextService(optimized, lambda: marche_fx.decoding(optimized))


def prompt(number: int) -> Tensor:
    return torch.arange(1, 9)[None] + number


async def read(own: TextService, number: int, *, lines: int | None = None) -> list[Tensor]:
    """What a reader gets, who leaves after so many ``lines``."""
    found = []
    stream = own.stream(prompt(number), *REQUESTS[number])
    async for ids in stream:
        found.append(ids)
        if len(found) == lines:
            await stream.aclose()
            break
    return found


async def alone(own: TextService) -> list[list[Tensor]]:
    return [await read(own, number) for number in range(len(REQUESTS))]


async def together(own: TextService) -> list[list[Tensor]]:
    """All at once, beside one who leaves and one who is cut off in the middle of a step."""
    leaves = asyncio.create_task(read(own, 2, lines=3))
    cut_off = asyncio.create_task(read(own, 1))
    readers = [asyncio.create_task(read(own, number)) for number in range(len(REQUESTS))]
    assert len(await leaves) == 3
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    return await asyncio.gather(*readers)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_reader_gets_what_he_would_alone_whoever_else_reads() -> None:
    own = service()
    asyncio.run(alone(own))  # captured
    expected, found = asyncio.run(alone(own)), asyncio.run(together(own))
    for number, (length, steps) in enumerate(REQUESTS):
        assert len(found[number]) == steps
        assert all(torch.equal(a, b) for a, b in zip(found[number], expected[number], strict=True))
        assert (found[number][-1] != own.model.mask_id).all()
        assert found[number][-1].shape[1] == 8 + length


def sessions() -> set[int]:
    """Those that there are in this process, other tests' among them."""
    gc.collect()
    return {id(own) for own in gc.get_objects() if isinstance(own, Session)}


def test_no_session_outlives_its_reader() -> None:
    own, before = service(), sessions()
    asyncio.run(together(own))
    own.thread.submit(int).result()  # what was left to do is done
    assert not own.open
    assert not IN_GENERATORS
    assert not OPEN.get()
    last = {id(step.owner.last_session) for step in own.model._marche_fx.steps.values()}
    assert not sessions() - before - last
