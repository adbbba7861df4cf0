"""Operators of ai.onnx.ml as other converters write them, in the spelling of the common graph.

What is not lowered stays as it is: engines of ONNX know it, writers of other formats refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from modelhub.errors import Unsupported
from modelhub.graph.builder import Builder
from modelhub.graph.forest_attributes import floats
from modelhub.graph.forest_classic_read import Scores, is_classic, scores
from modelhub.graph.forest_onnx import apply_link, margins

__all__ = ["lower"]


def lower(model: ir.Model) -> None:
    """Spell the classic tree operators, and Scaler, in place.

    Trees only where all can be, as one file does not hold old and new operators.
    """
    if not any(node.domain == "ai.onnx.ml" for node in model.graph):
        return
    common.RemoveUnusedNodesPass()(model)  # what is made of classes that are not given out
    trees = [node for node in model.graph if is_classic(node)]
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    everywhere = sum(is_classic(node) for graph in graphs for node in ir.traversal.RecursiveGraphIterator(graph))
    try:
        read = [_scores(node) for node in trees] if len(trees) == everywhere else []
    except Unsupported:
        read = []
    for node, found in zip(trees if read else [], read, strict=True):
        _replace(model.graph, node, node.outputs[-1], partial(_forest, found))
    for node in list(model.graph):
        if (node.domain, node.op_type) == ("ai.onnx.ml", "Scaler") and {"offset", "scale"} <= node.attributes.keys():
            offset, scale = (floats(node, name).astype(np.float32) for name in ("offset", "scale"))
            _replace(model.graph, node, node.outputs[0], partial(_scaler, offset, scale))


def _scores(node: ir.Node) -> Scores:
    """What a tree operator computes. Raises `Unsupported` where something is made of the class it decides for."""
    if node.op_type == "TreeEnsembleClassifier" and (len(node.outputs) != 2 or _used(node.outputs[0])):
        raise Unsupported("the class itself is used")
    return scores(node)


def _used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _forest(found: Scores, b: Builder, x: ir.Value) -> ir.Value:
    """As other readers spell a forest: TreeEnsemble, Add, link, and for two classes 1 - p beside p."""
    y = apply_link(b, found.forest.link, margins(b, found.forest, x))
    if found.rest is not None:
        first = b.op("Neg", y)
        if found.rest == "complement":
            first = b.op("Add", first, b.constant(np.array(1.0), "one"))
        y = b.op("Concat", first, y, axis=-1)
    return b.op("Cast", y, to=ir.DataType.FLOAT.value)


def _scaler(offset: np.ndarray, scale: np.ndarray, b: Builder, x: ir.Value) -> ir.Value:
    """(x - offset) · scale, in float32."""
    if x.dtype != ir.DataType.FLOAT:
        x = b.op("Cast", x, to=ir.DataType.FLOAT.value)
    return b.op("Mul", b.op("Sub", x, b.constant(offset, "offset")), b.constant(scale, "scale"))


def _replace(graph: ir.Graph, node: ir.Node, old: ir.Value, write: Callable[[Builder, ir.Value], ir.Value]) -> None:
    """Put what `write` makes of the input in the place of `old`, an output of `node`."""
    x = node.inputs[0]
    if x is None:  # which no engine takes
        return
    b = Builder()
    with b.scope(node.name or node.op_type):
        y = write(b, x)
    b.put(graph, node)
    y.type, y.shape = old.type, old.shape
    y.name, old.name = old.name, f"{old.name}_before"
    old.replace_all_uses_with(y, replace_graph_outputs=True)
    graph.remove(node, safe=True)
