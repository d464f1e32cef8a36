"""The steps that every variant runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from marche_fx.bench import mar_workload
from marche_fx.bench.workload import WorkStep, rows_of
from marche_fx.errors import ArgumentError
from marche_fx.lazy.rows import RowNumbers
from marche_fx.models import MAR
from marche_fx.tuning.replay import Call, Earlier, Read, record
from tests.evaluate.tiny import tiny_garments


@pytest.fixture(scope="module")
def mar() -> MAR:
    return tiny_garments()


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_steps_are_those_of_the_models_own_loop(mar: MAR, cfg: float) -> None:
    work = mar_workload(mar, 3, cfg, 5)
    recorded = record(mar, lambda given: given.sample_tokens(3, 5, cfg)).sessions[0]
    calls = [call for step in work.steps for call in step.calls]
    assert [call.step for call in calls] == [call.step for call in recorded]
    for made, own in zip(calls, recorded):
        (args, _), (others, _) = made.arguments, own.arguments
        assert [shape_of(leaf) for leaf in args] == [shape_of(leaf) for leaf in others]
        # As many tokens are masked and read, in other places.
        mask, other = args[1], others[1]
        assert torch.equal(mask.sum(1), other.sum(1))
        assert [len(read.exact) for read in own.reads] == [
            int(read.rows.sum()) for read in made.reads if read.rows is not None
        ]


def rows_in(read: Read) -> int:
    assert read.rows is not None
    return int(read.rows.sum())


def shape_of(leaf: object) -> object:
    return tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf


def test_every_token_is_read_once(mar: MAR) -> None:
    work = mar_workload(mar, 2, 3.0, 6)
    assert sum(step.read for step in work.steps) == 2 * 2 * mar.seq_len


def test_a_step_knows_the_rows_that_the_original_computes(mar: MAR) -> None:
    work = mar_workload(mar, 2, 1.0, 4)
    encoder, decoder = zip(*(step.rows for step in work.steps))
    assert encoder[0] == 2 * mar.buffer_size
    assert list(encoder) == sorted(encoder)
    assert set(decoder) == {2 * (mar.buffer_size + mar.seq_len)}


def test_the_same_seed_makes_the_same_steps(mar: MAR) -> None:
    one, same, other = (mar_workload(mar, 2, 1.0, 4, seed=seed) for seed in (0, 0, 1))

    def mask(work: object) -> Tensor:
        return work.steps[2].calls[0].arguments[0][1]  # type: ignore[attr-defined]

    assert torch.equal(mask(one), mask(same))
    assert not torch.equal(mask(one), mask(other))


def test_more_steps_than_tokens_are_refused(mar: MAR) -> None:
    with pytest.raises(ArgumentError, match="17 decoding steps are more than the 16 tokens"):
        mar_workload(mar, 1, 1.0, 17)


def test_a_workload_knows_whether_its_steps_stand_alone(mar: MAR) -> None:
    work = mar_workload(mar, 1, 1.0, 3)
    assert work.is_cut_anywhere
    call = Call("forward_mae_decoder", ((Earlier(0, 0),), {}))
    assert not dataclasses.replace(work, steps=(*work.steps, WorkStep(6, (call,)))).is_cut_anywhere


def test_rows_are_read_as_the_loop_reads_them() -> None:
    z, rows = torch.randn(2, 4, 3), torch.rand(2, 4) < 0.5
    assert torch.equal(rows_of(Read(0, rows, None, z), z), z[rows])
    assert torch.equal(rows_of(Read(0, rows.T, RowNumbers.plain(z.shape, (1, 0)), z), z), z.transpose(0, 1)[rows.T])
    assert rows_of(Read(0, None, None, z), z) is z
