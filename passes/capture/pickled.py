"""A capture as bytes, for another process."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx._graph_pickler import GraphPickler, Options

from .any_rows import AnyRows
from .captured import Capture, Input
from .writes import Writes

KEPT = ("val", "nn_module_stack", "stack_trace")
"""What passes and reports read of a node."""

PLAIN_GRAPH = Options(ops_filter=None, node_metadata_key_filter=KEPT.__contains__)


def dump_capture(capture: Capture) -> bytes:
    """The graph with its symbolic sizes, without weights and tables; the opposite of `load_capture`.

    Raises:
        Exception: as `pickle` does, where the graph holds something that it cannot write.
    """
    names = {
        "step": capture.step,
        "weights": {node.name: path for node, path in capture.weights.items()},
        "constants": {node.name: tensor for node, tensor in capture.constants.items()},
        "inputs": [(None, own.value) if own.node is None else (own.node.name, None) for own in capture.inputs],
        "specs": (capture.in_spec, capture.out_spec),
        "autocast": capture.autocast,
        "branches": capture.branches,
        "bools": capture.bools,
        "writes": None if capture.writes is None else (capture.writes.constants, capture.writes.numbers),
    }
    written = None if capture.writes is None else capture.writes.module
    return GraphPickler.dumps((capture.graph_module, names, written), PLAIN_GRAPH)


def load_capture(data: bytes) -> Capture:
    """The capture that `dump_capture` wrote."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with warnings.catch_warnings():
        # Tree specifications are rebuilt in a way that torch itself deprecates.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        loaded: Any = GraphPickler.loads(data, FakeTensorMode(shape_env=ShapeEnv()))
    graph_module, names, written = loaded
    if written is not None:
        # It comes without code.
        written.recompile()
    nodes = {node.name: node for node in graph_module.graph.nodes}
    in_spec, out_spec = names["specs"]
    return Capture(
        names["step"],
        graph_module,
        {nodes[name]: path for name, path in names["weights"].items()},
        {nodes[name]: tensor for name, tensor in names["constants"].items()},
        tuple(Input(nodes.get(name), nodes[name].meta["val"] if name else value) for name, value in names["inputs"]),
        in_spec,
        out_spec,
        names["autocast"],
        branches=names["branches"],
        bools=names["bools"],
        writes=None if written is None else Writes(written, *names["writes"]),
    )


def dump_any_rows(rows: AnyRows) -> bytes:
    """A capture for any number of rows; raises as `dump_capture` does."""
    sizes = {node.name: own for node, own in rows.sizes.items()}
    numbers = {(node.name, number): size for (node, number), size in rows.numbers.items()}
    return pickle.dumps((dump_capture(rows.capture), rows.rows, sizes, numbers))


def load_any_rows(data: bytes) -> AnyRows:
    """The opposite of `dump_any_rows`."""
    capture, rows, sizes, numbers = pickle.loads(data)
    loaded = load_capture(capture)
    nodes = {node.name: node for node in loaded.graph_module.graph.nodes}
    return AnyRows(
        loaded,
        rows,
        {nodes[name]: own for name, own in sizes.items()},
        {(nodes[name], number): size for (name, number), size in numbers.items()},
    )
