"""Tell a running profiler which attention or MLP site is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..rewrite.sites import SITE


class Ranges:
    """A rewritten region that runs node by node, in a range for each site, while somebody profiles.

    Otherwise it is the region itself: one look at a flag.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        if torch.autograd._profiler_enabled():
            return RangeInterpreter(self.module).run(*args)
        return self.module(*args)


class RangeInterpreter(fx.Interpreter):
    """Runs nodes in turn; those in a row that are of one site are in one range."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.site: str | None = None
        self.range: Any = None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().run(*args, **kwargs)
        finally:
            self.enter(None)

    def run_node(self, n: fx.Node) -> Any:
        self.enter(n.meta.get(SITE))
        return super().run_node(n)

    def enter(self, site: str | None) -> None:
        """Leave the range of another site for that of this one."""
        if site == self.site:
            return
        if self.range is not None:
            self.range.__exit__(None, None, None)
        self.site, self.range = site, None
        if site is not None:
            self.range = torch.profiler.record_function(f"marche_fx: {site}")
            self.range.__enter__()
