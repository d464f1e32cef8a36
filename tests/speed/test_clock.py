"""Time: of the processor, and of a device that works behind its calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marche_fx.errors import ArgumentError
from marche_fx.speed.clock import CudaClock, ProcessorClock, clock_for
from tests.bench.streams import Stream


def test_the_processor_is_timed_by_the_wall() -> None:
    clock = clock_for(torch.device("cpu"))
    assert isinstance(clock, ProcessorClock)
    begin = clock.mark()
    clock.settle()
    assert clock.seconds(begin, clock.mark()) >= 0
    assert clock.seconds(1.0, 3.5) == 2.5


def test_events_are_read_after_the_stream_was_waited_for() -> None:
    stream = Stream()
    clock: Any = CudaClock(stream.event, stream.synchronize)
    begin = clock.mark()
    stream.launch(milliseconds=250.0)
    end = clock.mark()
    # The call has returned and the work has not been done.
    assert stream.now == 0.0
    clock.settle()
    assert clock.seconds(begin, end) == 0.25


def test_cuda_has_a_clock_of_events() -> None:
    assert isinstance(clock_for(torch.device("cuda")), CudaClock)


def test_processor_time_is_of_one_thread() -> None:
    clock: Any = clock_for(torch.device("cpu"), cpu_time=True)
    begin = clock.mark()
    assert clock.seconds(begin, clock.mark()) >= 0
    with pytest.raises(ArgumentError, match="not on cuda with"):
        clock_for(torch.device("cuda"), cpu_time=True)
