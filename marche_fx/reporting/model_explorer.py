"""A report for Model Explorer (ai-edge-model-explorer): graphs before and after, and numbers to colour them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from ..passes.graph.source import source_line
from .dot import CACHED, COLOURS, GATHERED, entering, is_weight, makers, module_of
from .operators import STATES, Operator, StepGraph, full_name
from .step_choices import StepChoices

Json = dict[str, Any]

GRADIENT = [{"stop": 0, "bgColor": "#f5f5f5"}, {"stop": 1, "bgColor": "#e8743b"}]


def graphs_json(model: str, graphs: Sequence[StepGraph]) -> Json:
    """A collection of graphs, two for each captured step; operators have the same ids in both."""
    found = [graph for own, name in zip(graphs, names_of(graphs)) for graph in pair(own, name)]
    return {"label": model, "graphs": found}


def names_of(graphs: Sequence[StepGraph]) -> list[str]:
    """A name for each captured step; captures of one step method are numbered."""
    names = [own.name for own in graphs]
    return [name if names.count(name) == 1 else f"{name} {at}" for at, name in enumerate(names)]


def pair(graph: StepGraph, name: str) -> tuple[Json, Json]:
    return (
        {"id": f"{name}, as captured", "nodes": [*captured_nodes(graph)]},
        {"id": f"{name}, rewritten", "nodes": [*rewritten_nodes(graph)]},
    )


def captured_nodes(graph: StepGraph) -> Iterator[Json]:
    """The step as captured, each operator in its module."""
    by_name = {own.name: own for own in graph.operators()}
    for node in graph.plan.graph.nodes:
        sources = [own.name for own in node.all_input_nodes]
        if node.name in by_name:
            own = by_name[node.name]
            yield node_json(node.name, own.operator, path_of(own.module), sources, told(own))
        elif node.op == "output" or node.users:
            namespace = "" if node.op == "output" else "weights" if is_weight(node) else "inputs"
            yield node_json(node.name, node.name, namespace, sources)


def told(own: Operator) -> dict[str, str]:
    """What Model Explorer shows beside an operator."""
    found = {
        "runs on": STATES[own.state],
        "because it": own.reason,
        "shape": f"{own.dtype} [{', '.join(map(str, own.shape))}]" if own.dtype else "",
        "shape after": f"[{', '.join(own.active_shape)}]" if own.dtype else "",
        "source": own.line,
        "cache": "" if own.cache is None else f"{own.cache.role}, {own.cache.bytes:,} bytes",
    }
    return {name: value for name, value in found.items() if value}


def rewritten_nodes(graph: StepGraph) -> Iterator[Json]:
    """The three parts of the rewritten step, each operator in its module within its part."""
    made = makers(graph.split)
    ids = {(part, node): name for part, node, name in numbered(graph)}
    cached = {spec.value for spec in graph.split.caches}
    for part in COLOURS:
        own = getattr(graph.split, part)
        given = dict(zip(entering(own), own.inputs))
        for node in own.module.graph.nodes:
            if (part, node) not in ids:
                continue
            sources = []
            for operand in node.all_input_nodes:
                source = given.get(operand)
                # A value of another part is read where that part makes it; a region does not read its own caches so.
                if source in made and not (part == "incremental" and source in cached):
                    sources.append(ids[made[source]])
                else:
                    sources.append(ids[part, operand])
            label = full_name(node) if node.op == "call_function" else node.name
            namespace = "/".join(filter(None, (part, path_of(module_of(node))))) if node.op == "call_function" else part
            colour = {"update_cache": CACHED, "gather_active": GATHERED}.get(label)
            line = source_line(node)
            yield node_json(ids[part, node], label, namespace, sources, {"source": line} if line else {}, colour)


def numbered(graph: StepGraph) -> Iterator[tuple[str, fx.Node, str]]:
    """Every node that is shown of the rewritten step with its id: the captured operator's, where it is the first."""
    made = makers(graph.split)
    taken: set[str] = set()
    for part in COLOURS:
        own = getattr(graph.split, part)
        given = {copy for copy, source in zip(entering(own), own.inputs) if source in made}
        for node in own.module.graph.nodes:
            if node.op == "output" or (node.op == "placeholder" and (node in given or not node.users)):
                continue
            name = node.name if node.op == "call_function" and node.name not in taken else f"{part}.{node.name}"
            taken.add(name)
            yield part, node, name


def node_json(
    name: str,
    label: str,
    namespace: str,
    sources: Sequence[str],
    attributes: Mapping[str, str] | None = None,
    colour: str | None = None,
) -> Json:
    found: Json = {
        "id": name,
        "label": label,
        "namespace": namespace,
        "incomingEdges": [
            {"sourceNodeId": source, "sourceNodeOutputId": "0", "targetNodeInputId": str(number)}
            for number, source in enumerate(sources)
        ],
        "attrs": [{"key": key, "value": value} for key, value in (attributes or {}).items()],
    }
    return found if colour is None else {**found, "style": {"backgroundColor": colour}}


def path_of(module: str) -> str:
    """``blocks/0/attention``, in which no name of a module opens another level."""
    return "/".join(name.replace("/", "\u2215") for name in module.split(".")) if module else ""


# ----------------------------------------------------------------------------------------------------------- numbers


def node_data(graphs: Sequence[StepGraph], choices: Sequence[StepChoices]) -> dict[str, Json]:
    """By what they are called, numbers of operators in the graphs as captured; those of a session where it has some."""
    found: dict[str, Json] = {}
    for graph, name in zip(graphs, names_of(graphs)):
        shape = graph.plan.samples, graph.plan.axes.length
        own = [each for each in choices if each.method == graph.name and tuple(each.reasons.shape) == shape]
        for kind, values in numbers(graph.operators(), own).items():
            if values:
                results = {node: {"value": value} for node, value in values.items()}
                data = {"name": kind, "results": results, "gradient": GRADIENT}
                found.setdefault(kind, {})[f"{name}, as captured"] = data
    return found


def numbers(operators: Sequence[Operator], choices: Sequence[StepChoices]) -> dict[str, dict[str, float]]:
    """FLOPs of each operator before and after, and of a session rows, and age and drift of what is cached."""
    counted = [own for own in operators if own.flops]
    found = {
        "flops": {own.name: own.flops for own in counted},
        "active_flops": {own.name: own.active_flops for own in counted},
    }
    if choices:
        with_rows = [own for own in operators if own.rows]
        found["rows"] = {own.name: rows_computed(own, choices) for own in with_rows}
        age = mean_age(choices)
        found["age"] = {own.name: age for own in operators if own.cache is not None}
        drifts = [own.drift for own in choices if own.drift is not None]
        drift = sum(drifts) / max(len(drifts), 1)
        results = [own for own in operators if own.cache is not None and own.cache.role == "result"]
        found["drift"] = {own.name: drift for own in results} if drifts else {}
    return found


def rows_computed(own: Operator, choices: Sequence[StepChoices]) -> float:
    """Rows that an operator computed in a session, of all samples."""
    if own.active_rows == own.rows:
        return float(own.rows * len(choices))
    return float(sum(len(each.reasons) * (each.read if own.state == "read" else each.active) for each in choices))


def mean_age(choices: Sequence[StepChoices]) -> float:
    """How many decoding steps before it was read a row of a cache was computed, on average over rows and calls."""
    computed: dict[int, torch.Tensor] = {}
    ages = []
    for own in choices:
        last = computed.get(own.stream, torch.full(own.reasons.shape, own.decoding_step))
        computed[own.stream] = torch.where(own.reasons > 0, own.decoding_step, last)
        ages.append((own.decoding_step - computed[own.stream]).float().mean().item())
    return sum(ages) / len(ages)
