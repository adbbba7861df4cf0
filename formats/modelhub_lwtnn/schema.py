"""lwtnn's JSON as dataclasses, and their exact spelling in JSON.

Two kinds of file: a `GraphNetwork` (lwtnn: parse_json_graph) and a `SequentialNetwork` (lwtnn: parse_json).
Weights are float64 arrays, shaped; in the file they are flat lists, row major. What is built here is trusted to
be consistent: `parse.py` checks what comes from files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import Unsupported
from modelhub.graph.interface import Feature

__all__ = [
    "ALPHA",
    "Activation",
    "Array",
    "Conv1d",
    "Dense",
    "Embedding",
    "EmbeddingTable",
    "Gate",
    "GraphNetwork",
    "Group",
    "Gru",
    "Highway",
    "Layer",
    "Lstm",
    "Maxout",
    "Network",
    "Node",
    "Normalization",
    "OutputNode",
    "SequentialNetwork",
    "SimpleRnn",
    "dumps",
    "to_json",
]

Array = NDArray[np.float64]

ALPHA = frozenset({"elu", "leakyrelu", "swish"})
"""Activations that have a parameter alpha (lwtnn: get_activation)."""


@dataclass(frozen=True)
class Activation:
    """An activation by lwtnn's name (`rectified`, not `relu`); `alpha` belongs to the three of `ALPHA` only."""

    function: str
    alpha: float | None = None


@dataclass(frozen=True, eq=False)
class Dense:
    """activation(weights · x + bias). weights [out, in], None for the identity; bias [out], None for zero."""

    weights: Array | None
    bias: Array | None
    activation: Activation


@dataclass(frozen=True, eq=False)
class Normalization:
    """weights * (x + bias), both [n]."""

    weights: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Maxout:
    """max over k of (weights[k] · x + bias[k]). weights [k, out, in], bias [k, out]."""

    weights: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Highway:
    """c*t + (1-c)*x with t = activation(transform of x), c = sigmoid(carry of x). Weights [n, n], biases [n]."""

    transform_weights: Array
    transform_bias: Array
    carry_weights: Array
    carry_bias: Array
    activation: Activation


@dataclass(frozen=True, eq=False)
class Gate:
    """One gate of a recurrent layer: weights [U, F] on the step's features, recurrent [U, U] on the state, bias [U]."""

    weights: Array
    recurrent: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Lstm:
    """Gates `i`, `f`, `c`, `o` (lwtnn: LSTMLayer::step)."""

    gates: Mapping[str, Gate]
    activation: Activation
    inner_activation: Activation


@dataclass(frozen=True, eq=False)
class Gru:
    """Gates `z`, `r`, `h`; the reset gate acts before the recurrent product (lwtnn: GRULayer::step)."""

    gates: Mapping[str, Gate]
    activation: Activation
    inner_activation: Activation


@dataclass(frozen=True, eq=False)
class SimpleRnn:
    """h = activation(weights · x + bias + recurrent · h')."""

    gate: Gate
    activation: Activation


@dataclass(frozen=True, eq=False)
class Conv1d:
    """Convolution over steps. weights [out, in, K], bias [out] (None for zero), padding valid, same or causal."""

    weights: Array
    bias: Array | None
    padding: str
    dilation: int
    activation: Activation


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Row `index` of a step is a category; weights[:, category] takes its place. weights [n_out, n_categories]."""

    index: int
    weights: Array


@dataclass(frozen=True, eq=False)
class Embedding:
    """Tables applied one after the other, each on the rows the one before left."""

    tables: tuple[EmbeddingTable, ...]


Layer = Dense | Normalization | Maxout | Highway | Lstm | Gru | SimpleRnn | Conv1d | Embedding


@dataclass(frozen=True)
class Node:
    """One node of a graph file.

    `sources` are nodes, for `input` and `input_sequence` the one group; `layer` is an index into the layers
    (feed_forward, sequence, time_distributed), `size` the number of variables (input, input_sequence).
    """

    type: str
    sources: tuple[int, ...]
    layer: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Group:
    """A named input of a graph file with its variables in order."""

    name: str
    variables: tuple[Feature, ...]


@dataclass(frozen=True)
class OutputNode:
    """An output of a graph file: the node it shows and a label for each component."""

    labels: tuple[str, ...]
    node: int


@dataclass(frozen=True, eq=False)
class GraphNetwork:
    """A graph file. Outputs by name; lwtnn evaluates them in alphabetical order."""

    inputs: tuple[Group, ...]
    input_sequences: tuple[Group, ...]
    nodes: tuple[Node, ...]
    layers: tuple[Layer, ...]
    outputs: dict[str, OutputNode]


@dataclass(frozen=True, eq=False)
class SequentialNetwork:
    """A sequential file: a chain of layers over scalars, or over one sequence where a layer is recurrent."""

    variables: tuple[Feature, ...]
    layers: tuple[Layer, ...]
    labels: tuple[str, ...]
    miscellaneous: dict[str, str] = field(default_factory=dict)


Network = GraphNetwork | SequentialNetwork


def to_json(network: Network) -> dict[str, Any]:
    """`network` as the JSON object lwtnn reads. Raises `Unsupported` naming the layer that holds NaN or infinity."""
    head = _head(network)
    return {**head, "layers": list(_layers(network))}


def dumps(network: Network) -> bytes:
    """`network` as the bytes of a file: compact, every number its shortest decimals that read back to the same double.

    Layers are spelt one at a time: memory stays near the size of the file. Raises `Unsupported` like `to_json`.
    """
    encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode
    head = encode(_head(network)).removesuffix("}")
    layers = [encode(layer).encode() for layer in _layers(network)]
    return b"".join((head.encode(), b',"layers":[', b",".join(layers), b"]}\n"))


def _head(network: Network) -> dict[str, Any]:
    """All but the layers."""
    if isinstance(network, SequentialNetwork):
        head: dict[str, Any] = {"inputs": _variables("inputs", network.variables), "outputs": list(network.labels)}
        if network.miscellaneous:
            head["miscellaneous"] = dict(network.miscellaneous)
        return head
    return {
        "inputs": [_group("inputs", group) for group in network.inputs],
        "input_sequences": [_group("input_sequences", group) for group in network.input_sequences],
        "nodes": [_node(node) for node in network.nodes],
        "outputs": {
            name: {"labels": list(output.labels), "node_index": int(output.node)}
            for name, output in network.outputs.items()
        },
    }


def _group(where: str, group: Group) -> dict[str, Any]:
    return {"name": group.name, "variables": _variables(f"{where} {group.name!r}", group.variables)}


def _variables(where: str, features: Sequence[Feature]) -> list[dict[str, Any]]:
    result = []
    for feature in features:
        numbers = {"offset": float(feature.offset), "scale": float(feature.scale)}
        if feature.default is not None:
            numbers["default"] = float(feature.default)
        if not np.isfinite(list(numbers.values())).all():
            raise _not_finite(f"{where}, variable {feature.name!r}: offset, scale or default")
        result.append({"name": feature.name, **numbers})
    return result


def _node(node: Node) -> dict[str, Any]:
    data: dict[str, Any] = {"type": node.type, "sources": [int(source) for source in node.sources]}
    if node.layer is not None:
        data["layer_index"] = int(node.layer)
    if node.size is not None:
        data["size"] = int(node.size)
    return data


def _layers(network: Network) -> Iterator[dict[str, Any]]:
    for index, layer in enumerate(network.layers):
        yield _layer(f"layers[{index}]", layer)


def _layer(where: str, layer: Layer) -> dict[str, Any]:
    """One layer; `where` names it in errors."""

    def flat(name: str, array: Array | None) -> list[float]:
        if array is None:
            return []
        if not np.isfinite(array).all():
            raise _not_finite(f"{where} ({type(layer).__name__.lower()}): {name}")
        values: list[float] = np.asarray(array, dtype=np.float64).ravel().tolist()
        return values

    def gate(name: str, gate: Gate) -> dict[str, Any]:
        return {
            "weights": flat(f"{name}.weights", gate.weights),
            "U": flat(f"{name}.U", gate.recurrent),
            "bias": flat(f"{name}.bias", gate.bias),
        }

    match layer:
        case Dense():
            return {
                "architecture": "dense",
                "weights": flat("weights", layer.weights),
                "bias": flat("bias", layer.bias),
                "activation": _activation(where, layer.activation),
            }
        case Normalization():
            return {
                "architecture": "normalization",
                "weights": flat("weights", layer.weights),
                "bias": flat("bias", layer.bias),
            }
        case Maxout():
            pieces = zip(layer.weights, layer.bias, strict=True)
            return {
                "architecture": "maxout",
                "sublayers": [{"weights": flat("weights", w), "bias": flat("bias", b)} for w, b in pieces],
            }
        case Highway():
            return {
                "architecture": "highway",
                "activation": _activation(where, layer.activation),
                "components": {
                    "t": {
                        "weights": flat("t.weights", layer.transform_weights),
                        "bias": flat("t.bias", layer.transform_bias),
                    },
                    "carry": {
                        "weights": flat("carry.weights", layer.carry_weights),
                        "bias": flat("carry.bias", layer.carry_bias),
                    },
                },
            }
        case Lstm() | Gru():
            return {
                "architecture": "lstm" if isinstance(layer, Lstm) else "gru",
                "activation": _activation(where, layer.activation),
                "inner_activation": _activation(where, layer.inner_activation),
                "components": {name: gate(name, g) for name, g in layer.gates.items()},
            }
        case SimpleRnn():
            return {
                "architecture": "simplernn",
                "activation": _activation(where, layer.activation),
                "components": {"h": gate("h", layer.gate)},
            }
        case Conv1d():
            # The engine takes the number of channels from the bias: it must be there.
            bias = np.zeros(len(layer.weights)) if layer.bias is None else layer.bias
            return {
                "architecture": "conv1d",
                "weights": flat("weights", layer.weights),
                "bias": flat("bias", bias),
                "padding": layer.padding,
                "dilation_rate": int(layer.dilation),
                "activation": _activation(where, layer.activation),
            }
        case Embedding():
            return {
                "architecture": "embedding",
                "sublayers": [
                    {"weights": flat("weights", t.weights), "index": int(t.index), "n_out": len(t.weights)}
                    for t in layer.tables
                ],
            }


def _activation(where: str, activation: Activation) -> str | dict[str, Any]:
    """Spell as a string, or as an object where there is an alpha: without it those three give NaN in the engine."""
    if activation.function not in ALPHA:
        return activation.function
    if activation.alpha is None:
        raise ValueError(f"{where}: activation {activation.function} without alpha")
    if not np.isfinite(activation.alpha):
        raise _not_finite(f"{where}: alpha of {activation.function}")
    return {"function": activation.function, "alpha": float(activation.alpha)}


def _not_finite(where: str) -> Unsupported:
    return Unsupported(
        "cannot be written as lwtnn JSON", [f"{where} holds NaN or infinity, which JSON has no words for"]
    )
