"""Captures run one at a time, and what PyTorch changes for a trace counts in the tracing thread alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch.fx._symbolic_trace import _Patcher

from ..uncollected import uncollected


class CompileLock:
    """The lock that `torch.compile` holds while it compiles; found when it is first needed, with the compiler."""

    def __enter__(self) -> None:
        from torch._dynamo.convert_frame import compile_lock

        compile_lock.acquire()

    def __exit__(self, *_: object) -> None:
        from torch._dynamo.convert_frame import compile_lock

        compile_lock.release()


LOCK = CompileLock()
"""Held by a capture as by a compilation: both trace, with the same global variables."""

TALKATIVE = (
    *("torch.fx.experimental.symbolic_shapes", "torch.fx.experimental.proxy_tensor", "torch._subclasses.fake_tensor"),
    *("torch.export", "torch.export._trace", "torch._export", "torch._export.utils", "torch._dynamo"),
)
"""Loggers that tell of a failed trace what the error that is raised says better."""

LEFT_OUT = ("_ignore_backend_decomps", "_detect_attribute_assignment")
"""Context managers of a trace that this one does without."""


class EagerHere:
    """Whether functions under `torch.compile` are compiled: as ``others`` say, but not in one thread.

    A trace wants their operators. Called under its modes, Dynamo gives such a function up for good, for everybody, and
    one with ``fullgraph=True`` fails from then on.
    """

    def __init__(self, others: Any, thread: int) -> None:
        self.others = others
        self.thread = thread

    @property
    def stance(self) -> str:
        found: str = "force_eager" if threading.get_ident() == self.thread else self.others.stance
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.others, name)


@contextmanager
def compiling_nothing() -> Iterator[None]:
    """Functions under `torch.compile` run as they are written, in this thread."""
    from torch._dynamo import eval_frame

    before = vars(eval_frame)["_stance"]
    own = EagerHere(before, threading.get_ident())
    vars(eval_frame)["_stance"] = own
    try:
        yield
    finally:
        # Unless somebody has set another one meanwhile, whose word holds.
        if vars(eval_frame)["_stance"] is own:
            vars(eval_frame)["_stance"] = before


@contextmanager
def tracing_alone() -> Iterator[None]:
    """Trace in this thread, while others run models and compiled code as if nothing was traced.

    A trace replaces the methods by which modules are called, for all threads, and turns vendors' kernels off, which
    would change the last bits of what others compute. It also puts attributes back, with containers that are copies;
    `Step` does that itself.
    """
    from torch.export import _trace as export_trace

    own = threading.get_ident()

    def is_heard(record: logging.LogRecord) -> bool:
        return record.thread != own or record.levelno < logging.WARNING

    # What is put back must be read when no other thread has put something else there.
    with LOCK, uncollected(), compiling_nothing():
        patch_method = _Patcher.patch_method
        left_out = {name: getattr(export_trace, name) for name in LEFT_OUT}

        def patch_here(
            patcher: _Patcher, cls: type, name: str, new: Callable[..., Any], deduplicate: bool = True
        ) -> None:
            elsewhere = getattr(cls, name)

            def patched(*args: Any, **kwargs: Any) -> Any:
                return (new if threading.get_ident() == own else elsewhere)(*args, **kwargs)

            patch_method(patcher, cls, name, patched, deduplicate)

        loggers = [logging.getLogger(name) for name in TALKATIVE]
        for logger in loggers:
            logger.addFilter(is_heard)
        # A method of PyTorch's class, which types say nobody assigns to.
        _Patcher.patch_method = patch_here  # type: ignore[method-assign, assignment]
        vars(export_trace).update(dict.fromkeys(left_out, nullcontext))
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(is_heard)
            _Patcher.patch_method = patch_method  # type: ignore[method-assign]
            vars(export_trace).update(left_out)
