"""A copy of an ONNX file whose trees name their leaves.

No operator tells which leaf a row ends in. So the file's own tree nodes are kept as they are, questions and all, and
only what their leaves hold is exchanged: the leaf's number, counted in its tree, for a target that is the tree's own.
What stands in front of them stays, what stands behind them goes::

    x ──► Cast ──► TreeEnsemble (leaf: 3 of tree 7) ──► leaves [N, trees]
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from modelhub.errors import Inconclusive, safe_text
from modelhub_onnx.trees import all_nodes, is_tree, parsed

__all__ = ["naming_leaves"]

LARGEST = 1 << 24
"""Leaves of one tree: float32 counts no further."""

NODES = "nodes_"

ENDS = "LEAF"


def naming_leaves(proto: onnx.ModelProto) -> list[str]:
    """Change `proto`, in place, into one that names leaves: its outputs, [events, trees] each, whose names come back.

    One output for each tree node, in the order of the file. Raises `Inconclusive` where there is none, one stands in a
    branch or function, or one is fed by another.
    """
    graph = proto.graph
    trees = [node for node in graph.node if is_tree(node)]
    if not trees or len(trees) != sum(map(is_tree, all_nodes(proto))):
        raise Inconclusive("no tree operator stands in the graph itself, or not all of them do")
    kept = _before(graph, [name for node in trees for name in node.input])
    if any(is_tree(node) for node in kept):
        raise Inconclusive("the trees look at what other trees give")
    names = []
    for number, node in enumerate(trees):
        if node.op_type == "TreeEnsemble":
            _name_leaves(node)
        else:
            _name_classic_leaves(node)
        names.append(f"leaves_{number}")
        del node.output[:]
        node.output.append(names[-1])
    nodes = [*kept, *trees]
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    asked = {name for node in nodes for name in node.input}
    used = [tensor for tensor in graph.initializer if tensor.name in asked]
    del graph.initializer[:]
    graph.initializer.extend(used)
    return names


def _before(graph: onnx.GraphProto, wanted: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that compute values, in order; with branches inside, all that stand before."""
    needed = set(wanted)
    found = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise Inconclusive(f"{safe_text(node.name)} ({safe_text(node.op_type)}) in front of the trees has branches")
        needed |= set(node.input)
        found.append(node)
    return found[::-1]


def _name_leaves(node: onnx.NodeProto) -> None:
    """TreeEnsemble (ai.onnx.ml 5)."""
    from modelhub.graph.forest import tree_of
    from modelhub.graph.forest_forms import structure

    forest = structure(parsed(node))
    ends = np.flatnonzero(~forest.splits)
    tree = tree_of(forest)[ends]
    weights = next(a for a in node.attribute if a.name == "leaf_weights").t
    owner, number = np.zeros((2, int(np.prod(weights.dims))), np.int64)
    owner[forest.leaf[ends]], number[forest.leaf[ends]] = tree, _counted(tree, forest.trees)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(weights.data_type)
    _set(
        node,
        leaf_weights=numpy_helper.from_array(number.astype(dtype)),
        leaf_targetids=owner.tolist(),
        n_targets=forest.trees,
        aggregate_function=1,
        post_transform=0,
    )


def _name_classic_leaves(node: onnx.NodeProto) -> None:
    """TreeEnsembleRegressor, or TreeEnsembleClassifier as one: their nodes are the same."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    wide = any(f"{word}_weights_as_tensor" in attributes for word in ("target", "class"))
    tree_id = np.array(attributes["nodes_treeids"].ints, np.int64)
    node_id = np.array(attributes["nodes_nodeids"].ints, np.int64)
    ends = np.array([mode == ENDS.encode() for mode in attributes["nodes_modes"].strings], np.bool_)
    tree = np.cumsum(np.diff(tree_id, prepend=tree_id[:1]) != 0)
    trees = int(tree[-1]) + 1 if len(tree) else 0
    number = _counted(tree[ends], trees)
    kept = [attribute for name, attribute in attributes.items() if name.startswith(NODES)]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.op_type = "TreeEnsembleRegressor"
    weights = (
        {"target_weights_as_tensor": numpy_helper.from_array(number.astype(np.float64))}
        if wide
        else {"target_weights": number.astype(np.float32).tolist()}
    )
    _set(
        node,
        n_targets=trees,
        target_treeids=tree_id[ends].tolist(),
        target_nodeids=node_id[ends].tolist(),
        target_ids=tree[ends].tolist(),
        **weights,
    )


def _counted(tree: NDArray[np.int64], trees: int) -> NDArray[np.int64]:
    """The place of every leaf among those of its tree; `tree` says which is whose."""
    sizes = np.bincount(tree, minlength=trees)
    if not trees or sizes.max() > LARGEST:
        raise Inconclusive("there is no tree, or one with more leaves than float32 can count")
    place = np.empty(len(tree), np.int64)
    place[np.argsort(tree, kind="stable")] = np.arange(len(tree)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place


def _set(node: onnx.NodeProto, **values: object) -> None:
    """Attributes in place of those of the same names."""
    others = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend(others)
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in values.items())
