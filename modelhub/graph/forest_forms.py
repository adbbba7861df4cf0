"""The written forms of a forest, and the way back from a graph to `Forest`.

`retype` keeps every decision about a float32 row; `forests` finds the forests in a graph for the writers of other
formats. `forest_onnx` draws the pattern they look for; `forest_classic` writes the older operators.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.graph.forest import Compare, Forest, Link, Sets, tree_of
from modelhub.graph.forest_attributes import ints, place_of, tensor
from modelhub.graph.forest_onnx import LARGEST_TABLE, check_depth, narrowed

__all__ = ["Found", "forest_at", "forests", "from_node", "retype", "structure", "with_table", "with_targets", "without"]

LARGEST_COUNT = 1 << 24
"""Features and outputs of a forest in a file."""


@dataclass(frozen=True, eq=False)
class Found:
    """A forest in a graph: `forest` with float64 decisions and base 0, between values `x` and `margin`."""

    forest: Forest
    x: ir.Value
    margin: ir.Value
    nodes: tuple[ir.Node, ...]
    """What computes `margin` from `x`."""


def forests(model: ir.Model) -> list[Found]:
    """Every forest in the graph. Raises `Unsupported` for a TreeEnsemble that is no plain sum."""
    return [forest_at(node) for node in model.graph if _is_ensemble(node)]


def _is_ensemble(node: ir.Node) -> bool:
    return node.domain == "ai.onnx.ml" and node.op_type == "TreeEnsemble"


def forest_at(node: ir.Node) -> Found:
    """The forest whose TreeEnsemble is `node`, and the table of leaves behind it. Raises `Unsupported` as `forests`."""
    forest, x = from_node(node), node.inputs[0]
    if x is None:
        raise Unsupported(f"{place_of(node)} has no input")
    chain = with_table(node)
    if len(chain) == 1:
        return Found(forest, x, node.outputs[0], chain)
    first, table = (_constant(value) for value in (chain[2].inputs[1], chain[3].inputs[0]))
    if first is None or table is None or first.shape != (forest.trees,) or table.ndim != 2:
        return Found(forest, x, node.outputs[0], (node,))
    tree = tree_of(forest)
    ends = np.flatnonzero(~forest.splits)
    leaf = np.full(forest.nodes, -1, np.int64)
    leaf[ends] = forest.values[forest.leaf[ends], 0].astype(np.int64) + first[tree[ends]]
    width = table.shape[1]
    forest = replace(
        forest,
        leaf=leaf,
        values=table.astype(np.float64),
        base=np.zeros(width),
        tree_output=np.zeros(forest.trees, np.int64),
    )
    return Found(forest.checked("the graph"), x, chain[-1].outputs[0], chain)


def with_table(node: ir.Node) -> tuple[ir.Node, ...]:
    """A TreeEnsemble and the nodes that look its leaves up in a table; the node alone where none does."""
    chain = [node]
    for op_type in ("Cast", "Add", "Gather", "ReduceSum"):
        users = [use.node for use in chain[-1].outputs[0].uses()]
        if len(users) != 1 or users[0].op_type != op_type:
            return (node,)
        chain.append(users[0])
    return tuple(chain)


def _constant(value: ir.Value | None) -> NDArray[Any] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def from_node(node: ir.Node) -> Forest:
    """The forest of a TreeEnsemble node, as the operator says it in float64: base 0, no link."""
    forest = structure(node)
    if _int(node, "aggregate_function", 1) != 1 or _int(node, "post_transform", 0) != 0:
        raise Unsupported(f"{place_of(node)} is no plain sum of its trees")
    return forest


def structure(node: ir.Node) -> Forest:
    """The trees of a TreeEnsemble node, whatever is made of their values. Raises `UnreadableFile` where it has none."""
    where = place_of(node)
    splits, weights = tensor(node, "nodes_splits"), tensor(node, "leaf_weights").astype(np.float64)
    count, leaves = len(splits), len(weights)
    modes = tensor(node, "nodes_modes", count)
    features, targets = ints(node, "nodes_featureids", count), ints(node, "leaf_targetids", leaves)
    outputs = _int(node, "n_targets", 1)
    if not 0 < outputs <= LARGEST_COUNT or ((targets < 0) | (targets >= outputs)).any():
        raise UnreadableFile(f"{where} has a leaf for an output that is not there")
    if ((features < 0) | (features >= LARGEST_COUNT)).any():
        raise UnreadableFile(f"{where} asks for no known feature")
    child = {side: _children(node, side, count, leaves) for side in ("true", "false")}
    missing: NDArray[Any] = np.zeros(count, np.bool_)
    if "nodes_missing_value_tracks_true" in node.attributes:
        missing = ints(node, "nodes_missing_value_tracks_true", count) != 0
    nothing = np.full(leaves, -1, np.int64)
    bare = (child["true"] == child["false"]) & (child["true"] >= count)  # a tree of one leaf
    leaf = np.append(np.where(bare, child["true"] - count, -1), np.arange(leaves))
    member = np.append(modes == Compare.MEMBER, np.zeros(leaves, np.bool_))
    roots = ints(node, "tree_roots")
    if ((roots < 0) | (roots >= count)).any():
        raise UnreadableFile(f"{where}: the root of a tree is not a node")
    forest = Forest(
        features=int(features.max(initial=0)) + 1,
        feature=np.append(np.where(bare, -1, features), nothing).astype(np.int32),
        compare=np.append(modes, np.zeros(leaves, np.uint8)),
        threshold=np.append(splits.astype(np.float64), np.zeros(leaves)),
        true_child=np.append(np.where(bare, -1, child["true"]), nothing),
        false_child=np.append(np.where(bare, -1, child["false"]), nothing),
        missing=np.append(missing, np.zeros(leaves, np.bool_)),
        leaf=leaf,
        values=weights[:, np.newaxis],
        roots=roots,
        tree_output=np.zeros(len(roots), np.int64),
        tree_weight=np.ones(len(roots)),
        base=np.zeros(outputs),
        link=Link(),
        dtype="float64",
        sets=_sets(node, member, where),
    )
    forest = without(forest, np.append(np.zeros(count, np.bool_), np.isin(np.arange(leaves), leaf[:count][bare])))
    forest.checked(where)
    check_depth(forest)
    return with_targets(forest, targets, where)


def with_targets(forest: Forest, targets: NDArray[np.int64], where: str) -> Forest:
    """The forest, whose leaves hold one value each, with the outputs [leaves] they feed: by tree, or leaf by leaf."""
    tree = tree_of(forest, where)
    ends = np.flatnonzero(~forest.splits)
    output = np.zeros(forest.trees, np.int64)
    output[tree[ends]] = targets[forest.leaf[ends]]
    if (output[tree[ends]] == targets[forest.leaf[ends]]).all():
        return replace(forest, tree_output=output)
    leaves = len(forest.values)
    if leaves * forest.outputs > LARGEST_TABLE:
        raise Unsupported(f"{where}: {leaves} leaves for any of {forest.outputs} outputs are too many")
    values = np.zeros((leaves, forest.outputs))
    values[np.arange(leaves), targets] = forest.values[:, 0]
    return replace(forest, values=values)


def _children(node: ir.Node, side: str, count: int, leaves: int) -> NDArray[np.int64]:
    """One child of every split: a split, or `count` + a leaf."""
    ids, is_leaf = ints(node, f"nodes_{side}nodeids", count), ints(node, f"nodes_{side}leafs", count) != 0
    gone = (ids < 0) | (ids >= np.where(is_leaf, leaves, count))
    if gone.any():
        raise UnreadableFile(f"{place_of(node)}: node {int(np.argmax(gone))} has a child that is not there")
    return np.asarray(ids + count * is_leaf)


def without(forest: Forest, gone: NDArray[np.bool_]) -> Forest:
    """The forest without the nodes `gone`, which nothing leads to any more."""
    if not gone.any():
        return forest
    new = np.cumsum(~gone) - 1

    def moved(child: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(child < 0, -1, new[child])[~gone]

    sets = forest.sets
    return replace(
        forest,
        **{name: getattr(forest, name)[~gone] for name in ("feature", "compare", "threshold", "missing", "leaf")},
        true_child=moved(forest.true_child),
        false_child=moved(forest.false_child),
        roots=new[forest.roots],
        sets=None if sets is None else Sets.of(np.diff(sets.start)[~gone], sets.members),
    )


def _sets(node: ir.Node, member: NDArray[np.bool_], where: str) -> Sets | None:
    if not member.any():
        return None
    values = tensor(node, "membership_values").astype(np.float64)
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != member.sum() or ends[-1] != len(values) - 1:
        raise UnreadableFile(f"{where}: {len(ends)} sets of categories for {int(member.sum())} nodes")
    sizes = np.zeros(len(member), np.int64)
    sizes[member] = np.diff(ends, prepend=-1) - 1
    return Sets.of(sizes, values[~np.isnan(values)])


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.type != ir.AttributeType.INT else int(attribute.as_int())


def retype(node: ir.Node, dtype: str) -> None:
    """Write a TreeEnsemble's numbers in `dtype` ("float32" or "float64"), in place.

    Going down, thresholds go to the deciding side (`narrowed`) and leaves to the nearest.
    """
    tensors = {"nodes_splits": tensor(node, "nodes_splits")}
    if dtype == "float32":
        compare, threshold = narrowed(tensor(node, "nodes_modes"), tensors["nodes_splits"].astype(np.float64))
        tensors = {"nodes_modes": compare, "nodes_splits": threshold}
    for name in ("nodes_splits", "leaf_weights", "membership_values"):
        if name in node.attributes:
            tensors[name] = tensors.get(name, tensor(node, name)).astype(dtype)
    for name, array in tensors.items():
        node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
