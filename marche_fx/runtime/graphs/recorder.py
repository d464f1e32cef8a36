"""What records the work of a step and replays it: CUDA graphs, or whatever stands for them in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

SHARE = 0.1
"""Of a GPU's memory that graphs may take."""


class RecordingError(Exception):
    """Nothing can be recorded on a device; its text ends a warning."""


class Recording(Protocol):
    """Work that was recorded."""

    @property
    def size(self) -> int:
        """Bytes that it keeps for what it computes."""

    def replay(self) -> None:
        """Do it again, with what its inputs hold by now."""


class Recorder(Protocol):
    """Records work on one device, all of it in one pool of memory."""

    @property
    def limit(self) -> int:
        """Bytes that the recordings may keep together."""

    def record(self, run: Callable[[], None]) -> Recording:
        """Record what ``run`` would do, without doing it. What ``run`` raises is raised, and nothing was done."""


class CudaRecording:
    """A CUDA graph."""

    def __init__(self, recorder: CudaRecorder, graph: torch.cuda.CUDAGraph, size: int) -> None:
        self.recorder = recorder
        self.graph = graph
        self.size = size

    def replay(self) -> None:
        # Graphs of one pool use the same memory, so they must not run beside one another.
        stream = torch.cuda.current_stream(self.recorder.device)
        if self.recorder.last not in (None, stream):
            stream.wait_stream(self.recorder.last)
        self.recorder.last = stream
        self.graph.replay()


class CudaRecorder:
    """Records CUDA graphs on one GPU.

    Raises:
        RecordingError: there is no GPU here, or steps compute elsewhere.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise RecordingError(f"the step computes on {device.type}, and CUDA graphs are for GPUs of NVIDIA")
        if torch.version.cuda is None:
            raise RecordingError("this PyTorch was not built for CUDA")
        self.device = device
        self.limit = int(SHARE * torch.cuda.get_device_properties(device).total_memory)
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.last: torch.cuda.Stream | None = None
        """On which a graph was replayed last."""

    def record(self, run: Callable[[], None]) -> CudaRecording:
        graph, raised, before = torch.cuda.CUDAGraph(), None, 0
        try:
            # Other threads may go on allocating meanwhile.
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                before = torch.cuda.memory_reserved(self.device)
                try:
                    run()
                except BaseException as error:
                    raised = error
                    raise
        except BaseException:
            # The pool may be left as one in which something is being recorded.
            self.pool = torch.cuda.graph_pool_handle()
            if raised is not None:
                # Of a recording that was broken off CUDA tells at its end too.
                raise raised from None
            raise
        return CudaRecording(self, graph, max(torch.cuda.memory_reserved(self.device) - before, 0))
