"""lwtnn's JSON into the dataclasses of `schema.py`, by a validator stricter than the engine.

lwtnn finds some faults when it builds a network, some at the first event, and some never (wrong label counts, widths
that do not fit, matrices that are missing): all are found here, as `UnreadableFile` with the JSON path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelhub.errors import notice, safe_text
from modelhub.files import LIMITS, parse_json, read_bytes
from modelhub.graph.interface import Feature
from modelhub_lwtnn import parse_layers
from modelhub_lwtnn.cursor import Cursor
from modelhub_lwtnn.schema import (
    GraphNetwork,
    Group,
    Layer,
    Network,
    Node,
    OutputNode,
    SequentialNetwork,
)
from modelhub_lwtnn.wiring import SERIES, VECTOR, Cycle, order

__all__ = ["parse", "read"]

WIDTH = 1 << 20
"""The widest vector we take for meant: a short file can double its width node by node."""


def read(path: Path) -> Network:
    """The network in the file `path`. Raises `UnreadableFile`."""
    return parse(parse_json(read_bytes(path, LIMITS.json), str(path)), str(path))


def parse(data: Any, document: str) -> Network:
    """The network in the JSON object `data`; `document` names it in errors."""
    at = Cursor(data, document)
    if "nodes" in at:
        return _graph(at)
    if "input_sequences" in at:
        raise at.fault("lacks the key 'nodes': is it the variables file of a network?")
    return _sequential(at)


def _sequential(at: Cursor) -> SequentialNetwork:
    defaults = {name: value.number() for name, value in at["defaults"].members()} if "defaults" in at else None
    variables = _variables(at["inputs"], defaults)
    places = at["layers"].elements()
    kinds = [place["architecture"].text() for place in places]
    width = len(variables)
    layers: dict[int, Layer] = {}
    # lwtnn runs recurrent layers first, so that is the order in which widths follow from each other.
    for index in sorted(range(len(places)), key=lambda i: kinds[i] not in ("lstm", "gru", "simplernn", "embedding")):
        if kinds[index] == "conv1d":
            raise places[index].fault("is a conv1d, which lwtnn knows in graph files only")
        layers[index], width = _layer(places[index], width)
    labels = _labels(at["outputs"], width)
    remarks = dict(_remarks(at["miscellaneous"])) if "miscellaneous" in at else {}
    return SequentialNetwork(variables, tuple(layers[i] for i in range(len(places))), labels, remarks)


def _remarks(at: Cursor) -> list[tuple[str, str]]:
    """The user's own remarks; what is not a text stays as JSON."""
    return [
        (name, value.value if isinstance(value.value, str) else json.dumps(value.value)) for name, value in at.members()
    ]


def _graph(at: Cursor) -> GraphNetwork:
    inputs = tuple(map(_group, at["inputs"].elements()))
    sequences = tuple(map(_group, at["input_sequences"].elements()))
    places = at["nodes"].elements()
    nodes = tuple(_node(place, len(places)) for place in places)
    layers, widths = _widths(at, nodes, inputs, sequences)
    outputs = {}
    for name, place in at["outputs"].members():
        node = place["node_index"].integer()
        if node >= len(nodes):
            raise place["node_index"].fault(f"is {node}, the file has {len(nodes)} nodes")
        outputs[name] = OutputNode(_labels(place["labels"], widths[node]), node)
    if not outputs:
        raise at["outputs"].fault("is empty")
    return _without_idle_layers(at, GraphNetwork(inputs, sequences, nodes, tuple(layers.values()), outputs), layers)


def _group(at: Cursor) -> Group:
    return Group(at["name"].name(), _variables(at["variables"], None))


def _variables(at: Cursor, defaults: dict[str, float] | None) -> tuple[Feature, ...]:
    """The variables at `at`; `defaults`, where given, overrule those of the variables (lwtnn: get_defaults)."""
    features = []
    for place in at.elements():
        name = place["name"].name()
        if defaults is not None:
            default = defaults.get(name)
        else:
            default = place["default"].number() if "default" in place else None
        features.append(Feature(name, place["offset"].number(), place["scale"].number(), default))
    if not features:
        raise at.fault("is empty: lwtnn needs one variable at least")
    return tuple(features)


def _labels(at: Cursor, width: int) -> tuple[str, ...]:
    labels = tuple(place.text() for place in at.elements())
    if len(labels) != width:
        raise at.fault(f"has {len(labels)} labels for {width} components")
    if len(set(labels)) != width:
        twice = next(label for label in labels if labels.count(label) > 1)
        raise at.fault(f"has the label {safe_text(twice)!r} twice: lwtnn would drop a component")
    return labels


def _node(at: Cursor, count: int) -> Node:
    """One node with its sources in range; whether they fit is for `_widths`."""
    kind = at["type"].text()
    sources = tuple(place.integer() for place in at["sources"].elements())
    if kind not in VECTOR | SERIES:
        raise at["type"].fault(f"is {safe_text(kind)!r}, which is no node type of lwtnn")
    if not sources or (len(sources) > 1 and kind not in ("concatenate", "add")):
        raise at["sources"].fault(f"has {len(sources)} entries, a {kind} node takes {_appetite(kind)}")
    if kind in ("input", "input_sequence"):
        return Node(kind, sources, size=at["size"].integer(least=1))
    for index, source in enumerate(sources):
        if source >= count:
            raise at["sources"].fault(f"names node {source} (entry {index}), the file has {count} nodes")
    return Node(kind, sources, at["layer_index"].integer() if kind in LAYERED else None)


LAYERED = frozenset({"feed_forward", "sequence", "time_distributed"})


def _appetite(kind: str) -> str:
    return "one or more" if kind in ("concatenate", "add") else "exactly one"


def _widths(
    at: Cursor, nodes: tuple[Node, ...], inputs: tuple[Group, ...], sequences: tuple[Group, ...]
) -> tuple[dict[int, Layer], list[int]]:
    """The layers in use, by index and sorted, and the width of every node; kinds and widths checked on the way."""
    places = at["nodes"].elements()
    layer_places = at["layers"].elements()
    try:
        walk = order(nodes)
    except Cycle as cycle:
        raise places[cycle.node]["sources"].fault("closes a cycle") from None
    layers: dict[int, Layer] = {}
    used: dict[int, tuple[int, int]] = {}
    widths = [0] * len(nodes)

    def through(node: int, place: Cursor) -> int:
        """The width behind the layer of `node`; each layer is read once, at its first user's width."""
        kind, index, width = nodes[node].type, nodes[node].layer or 0, widths[nodes[node].sources[0]]
        if index >= len(layer_places):
            raise place["layer_index"].fault(f"is {index}, the file has {len(layer_places)} layers")
        if index not in layers:
            layers[index], out = _layer(layer_places[index], width)
            used[index] = width, out
        if used[index][0] != width:
            raise place["layer_index"].fault(f"runs layer {index} at width {width}, another node at {used[index][0]}")
        _fits(layer_places[index]["architecture"], kind, place)
        return used[index][1]

    for node in walk:
        place, kind = places[node], nodes[node].type
        if kind in ("input", "input_sequence"):
            groups, name = (inputs, "inputs") if kind == "input" else (sequences, "input_sequences")
            widths[node] = _entry(place, nodes[node], groups, name)
            continue
        needed = SERIES if kind in ("sequence", "time_distributed", "sum") else VECTOR
        for source in nodes[node].sources:
            if nodes[source].type not in needed:
                what = "sequence" if needed is SERIES else "vector"
                raise place["sources"].fault(f"must name {what} nodes; node {source} is of type {nodes[source].type}")
        behind = [widths[source] for source in nodes[node].sources]
        if kind == "add" and len(set(behind)) > 1:
            raise place["sources"].fault(f"have widths {safe_text(sorted(set(behind)))}, an add node needs equal ones")
        widths[node] = through(node, place) if kind in LAYERED else sum(behind) if kind == "concatenate" else behind[0]
        if widths[node] > WIDTH:
            raise place.fault(f"is {widths[node]} wide, more than the limit of {WIDTH}")
    return dict(sorted(layers.items())), widths


def _entry(place: Cursor, node: Node, groups: tuple[Group, ...], name: str) -> int:
    """The width of an input node."""
    group, size = node.sources[0], node.size or 0
    if group >= len(groups):
        raise place["sources"].fault(f"names {name}[{group}], the file has {len(groups)}")
    if size != len(groups[group].variables):
        raise place["size"].fault(f"is {size}, {name}[{group}] has {len(groups[group].variables)} variables")
    return size


def _layer(at: Cursor, width: int) -> tuple[Layer, int]:
    layer, out = parse_layers.layer(at, width)
    if out > WIDTH:
        raise at.fault(f"gives {out} components, more than the limit of {WIDTH}")
    return layer, out


def _fits(architecture: Cursor, kind: str, place: Cursor) -> None:
    """Whether a node of type `kind` runs this architecture (lwtnn: Stack::add_layers, RecurrentStack)."""
    name = architecture.text()
    allowed = parse_layers.SEQUENCE if kind == "sequence" else parse_layers.FEED_FORWARD
    if name not in allowed:
        raise place["layer_index"].fault(
            f"names {architecture.path} = {name}, a {kind} node takes {', '.join(sorted(allowed))}"
        )


def _without_idle_layers(at: Cursor, network: GraphNetwork, layers: dict[int, Layer]) -> GraphNetwork:
    """`network` with its nodes pointing at the layers in use, counted anew where some are idle."""
    idle = [i for i in range(len(at["layers"].value)) if i not in layers]
    if not idle:
        return network
    notice(f"{at.document}: no node uses layers {safe_text(idle)}; left out")
    place = {index: position for position, index in enumerate(layers)}
    nodes = tuple(
        node if node.layer is None else Node(node.type, node.sources, place[node.layer]) for node in network.nodes
    )
    return GraphNetwork(network.inputs, network.input_sequences, nodes, network.layers, network.outputs)
