"""At which line of the model a symbolic size became a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from .lines import line_being_run
from .sizes import is_symbolic, line_that_fixes


class FixedSizes(TorchFunctionMode):
    """Notes the line at which the first of the arguments' symbolic sizes is fixed.

    A branch on a size calls no function of PyTorch's, and the next one that is called may be far from it.
    """

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        super().__init__()
        self.sizes: list[Any] = [size for own in arguments for size in own.shape if is_symbolic(size)]
        self.symbols = {size.node.expr: size.node.shape_env for size in self.sizes if size.node.expr.is_symbol}
        self.line = ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        finally:
            if not self.line and not all(map(is_symbolic, self.sizes)):
                branches = (line_that_fixes(symbol, env) for symbol, env in self.symbols.items())
                self.line = next(filter(None, branches), "") or line_being_run()
