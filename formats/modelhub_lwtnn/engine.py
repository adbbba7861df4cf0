"""A numpy evaluator of lwtnn networks in float64, over batches of events, written from the engine's rules.

Source: lwtnn, include/lwtnn/generic (Graph.tcc, Stack.tcc, InputPreprocessor.tcc), src/NanReplacer.cxx. Where lwtnn
computes a node once for every consumer, each is computed once here. Its sums run in another order than Eigen's:
results agree to a few units in the last place of the largest term, not to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelhub.errors import Inconclusive
from modelhub_lwtnn.activations import activate, sigmoid
from modelhub_lwtnn.recurrent import scan
from modelhub_lwtnn.schema import (
    Array,
    Conv1d,
    Dense,
    Embedding,
    GraphNetwork,
    Group,
    Gru,
    Highway,
    Layer,
    Lstm,
    Maxout,
    Node,
    Normalization,
    SimpleRnn,
)
from modelhub_lwtnn.wiring import Answer, order

__all__ = ["evaluate"]


def evaluate(
    network: GraphNetwork, vectors: Sequence[Array], sequences: Sequence[Array], wanted: Sequence[Answer]
) -> list[Array]:
    """What `network` answers to raw inputs.

    Args:
        network: a graph, or `as_graph` of a sequential file.
        vectors: one array [events, variables] per group of `network.inputs`.
        sequences: one array [events, steps, variables] per group of `network.input_sequences`.
        wanted: the answers asked for (`wiring.answers` lists all).

    Each variable's default replaces NaN, then ``(x + offset) * scale``: lwtnn leaves the first to its caller
    (NanReplacer) and does the second. An answer is [events, components], or [events, steps, components] where
    `Answer.sequence`. Raises `Inconclusive` where lwtnn refuses the values.

    """
    nodes = network.nodes
    results: dict[int, Array] = {}
    with np.errstate(all="ignore"):  # infinities and NaN pass, as in the engine
        for index in order(nodes, [answer.node for answer in wanted]):
            node = nodes[index]
            if node.type == "input":
                results[index] = _prepared(network.inputs[node.sources[0]], vectors[node.sources[0]])
            elif node.type == "input_sequence":
                results[index] = _prepared(network.input_sequences[node.sources[0]], sequences[node.sources[0]])
            else:
                results[index] = _run(node, network, results)
        return [
            results[answer.node] if answer.sequence else _vector(nodes[answer.node], results[answer.node])
            for answer in wanted
        ]


def _prepared(group: Group, raw: Array) -> Array:
    """Raw values as the network takes them (NanReplacer for NaN, then InputPreprocessor)."""
    offset = np.array([feature.offset for feature in group.variables])
    scale = np.array([feature.scale for feature in group.variables])
    default = np.array([np.nan if feature.default is None else feature.default for feature in group.variables])
    x = np.asarray(raw, dtype=np.float64)
    return np.asarray((np.where(np.isnan(x), default, x) + offset) * scale)


def _vector(node: Node, result: Array) -> Array:
    """The result of `node` as a vector: the last step of a `sequence`, zeros if it has none (SequenceNode::compute)."""
    if node.type != "sequence":
        return result
    if result.shape[1] == 0:
        return np.zeros((result.shape[0], result.shape[2]))
    return result[:, -1]


def _run(node: Node, network: GraphNetwork, results: dict[int, Array]) -> Array:
    """The result of a node that is no input: [events, steps, components] for sequence and time_distributed."""
    given = [results[source] for source in node.sources]
    match node.type:
        case "concatenate" | "add":
            parts = [_vector(network.nodes[s], x) for s, x in zip(node.sources, given, strict=True)]
            return np.concatenate(parts, axis=1) if node.type == "concatenate" else np.sum(parts, axis=0)
        case "sum":
            return np.asarray(given[0].sum(axis=1))
        case "feed_forward":
            return compute(_layer(node, network), _vector(network.nodes[node.sources[0]], given[0]))
        case "time_distributed":
            events, steps, features = given[0].shape
            flat = compute(_layer(node, network), given[0].reshape(events * steps, features))
            return flat.reshape(events, steps, flat.shape[1])
    layer = _layer(node, network)
    if not isinstance(layer, Lstm | Gru | SimpleRnn | Conv1d | Embedding):
        raise Inconclusive(f"lwtnn has no {node.type} node over a {type(layer).__name__.lower()} layer")
    return scan(layer, given[0])


def _layer(node: Node, network: GraphNetwork) -> Layer:
    if node.layer is None:
        raise Inconclusive(f"the {node.type} node names no layer")
    return network.layers[node.layer]


def compute(layer: Layer, x: Array) -> Array:
    """A layer that works on vectors: x is [events, features] (Stack::compute)."""
    match layer:
        case Dense():
            y = x if layer.weights is None else x @ layer.weights.T
            return activate(layer.activation, y if layer.bias is None else y + layer.bias)
        case Normalization():
            return np.asarray(layer.weights * (x + layer.bias))
        case Maxout():
            pieces = (x @ weights.T + bias for weights, bias in zip(layer.weights, layer.bias, strict=True))
            best: Array = next(pieces)
            for piece in pieces:
                best = np.maximum(best, piece)
            return best
        case Highway():
            carry = sigmoid(x @ layer.carry_weights.T + layer.carry_bias)
            transform = activate(layer.activation, x @ layer.transform_weights.T + layer.transform_bias)
            return np.asarray(carry * transform + (1.0 - carry) * x)
    raise Inconclusive(f"lwtnn runs no {type(layer).__name__.lower()} layer on vectors")
