"""Trees in ONNX files: none that brings an engine down."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.graph import forest_classic_read, forest_forms

__all__ = ["all_nodes", "check_trees", "is_tree", "parsed"]


def check_trees(proto: onnx.ModelProto, where: str) -> None:
    """Refuse trees that are none: children that are not there or have two parents, circles, thresholds that are NaN.

    And trees so deep that onnxruntime, which walks them by recursion as it loads a model, ends the whole process.
    """
    for node in filter(is_tree, all_nodes(proto)):
        try:
            alone = parsed(node)
        except Exception as error:  # onnx_ir raises many kinds on malformed protos
            raise UnreadableFile(f"{where}: {safe_text(node.op_type)}: {safe_text(error, 160)}") from None
        read = forest_classic_read if forest_classic_read.is_classic(alone) else forest_forms
        try:
            read.structure(alone)
        except (UnreadableFile, Unsupported) as error:
            raise type(error)(f"{where}: {error}") from None


def is_tree(node: onnx.NodeProto) -> bool:
    """Whether a node is a tree operator, new or classic."""
    return node.domain == "ai.onnx.ml" and node.op_type.startswith("TreeEnsemble")


def parsed(node: onnx.NodeProto) -> ir.Node:
    """A node without its inputs."""
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[:]  # which onnx_ir would look for, and complain
    return ir.serde.deserialize_node(alone)


def all_nodes(proto: onnx.ModelProto) -> Iterable[onnx.NodeProto]:
    """Every node of the graph, its subgraphs and functions."""
    todo = [proto.graph.node, *(function.node for function in proto.functions)]
    while todo:
        for node in todo.pop():
            yield node
            for attribute in node.attribute:
                todo += [graph.node for graph in (attribute.g, *attribute.graphs) if graph.node]
