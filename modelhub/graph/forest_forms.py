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

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.graph.forest import Compare, Forest, Link, Sets, tree_of
from modelhub.graph.forest_attributes import ints
from modelhub.graph.forest_onnx import LARGEST_TABLE, narrowed

__all__ = ["Found", "forest_at", "forests", "retype", "with_table"]


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
        raise Unsupported(f"{safe_text(node.name)} (TreeEnsemble) has no input")
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
    where = f"{safe_text(node.name)} (TreeEnsemble)"
    if _int(node, "aggregate_function", 1) != 1 or _int(node, "post_transform", 0) != 0:
        raise Unsupported(f"{where} is no plain sum of its trees")
    modes, splits = (_tensor(node, name) for name in ("nodes_modes", "nodes_splits"))
    weights = _tensor(node, "leaf_weights").astype(np.float64)
    count, leaves = len(splits), len(weights)
    child = {}
    for side in ("true", "false"):
        ids, is_leaf = ints(node, f"nodes_{side}nodeids"), ints(node, f"nodes_{side}leafs")
        child[side] = ids + count * (is_leaf != 0)
    missing = (
        ints(node, "nodes_missing_value_tracks_true") if "nodes_missing_value_tracks_true" in node.attributes else 0
    )
    nothing = np.full(leaves, -1, np.int64)
    bare = (child["true"] == child["false"]) & (child["true"] >= count)  # a tree of one leaf
    leaf = np.append(np.where(bare, child["true"] - count, -1), np.arange(leaves))
    member = np.append(modes == Compare.MEMBER, np.zeros(leaves, np.bool_))
    roots, targets = ints(node, "tree_roots"), ints(node, "leaf_targetids")
    forest = Forest(
        features=int(ints(node, "nodes_featureids").max(initial=0)) + 1,
        feature=np.append(np.where(bare, -1, ints(node, "nodes_featureids")), nothing).astype(np.int32),
        compare=np.append(modes, np.zeros(leaves, np.uint8)),
        threshold=np.append(splits.astype(np.float64), np.zeros(leaves)),
        true_child=np.append(np.where(bare, -1, child["true"]), nothing),
        false_child=np.append(np.where(bare, -1, child["false"]), nothing),
        missing=np.append(np.broadcast_to(missing, count) != 0, np.zeros(leaves, np.bool_)),
        leaf=leaf,
        values=weights[:, np.newaxis],
        roots=roots,
        tree_output=np.zeros(len(roots), np.int64),
        tree_weight=np.ones(len(roots)),
        base=np.zeros(_int(node, "n_targets", 1)),
        link=Link(),
        dtype="float64",
        sets=_sets(node, member, where),
    )
    forest = _without(forest, np.append(np.zeros(count, np.bool_), np.isin(np.arange(leaves), leaf[:count][bare])))
    tree = tree_of(forest, where)
    ends = np.flatnonzero(~forest.splits)
    output = np.zeros(forest.trees, np.int64)
    output[tree[ends]] = targets[forest.leaf[ends]]
    if (output[tree[ends]] == targets[forest.leaf[ends]]).all():
        return replace(forest, tree_output=output).checked(where)
    if leaves * forest.outputs > LARGEST_TABLE:
        raise Unsupported(f"{where}: {leaves} leaves for any of {forest.outputs} outputs are too many")
    if not 0 <= int(targets.min()) <= int(targets.max()) < forest.outputs:
        raise UnreadableFile(f"{where} has a leaf for an output that is not there")
    values = np.zeros((leaves, forest.outputs))
    values[np.arange(leaves), targets] = weights
    return replace(forest, values=values).checked(where)


def _without(forest: Forest, gone: NDArray[np.bool_]) -> Forest:
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
    values = _tensor(node, "membership_values").astype(np.float64)
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != member.sum():
        raise Unsupported(f"{where}: {len(ends)} sets of categories for {int(member.sum())} nodes")
    sizes = np.zeros(len(member), np.int64)
    sizes[member] = np.diff(ends, prepend=-1) - 1
    return Sets.of(sizes, values[~np.isnan(values)])


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def _tensor(node: ir.Node, name: str) -> NDArray[Any]:
    return np.asarray(node.attributes[name].as_tensor().numpy())


def retype(node: ir.Node, dtype: str) -> None:
    """Write a TreeEnsemble's numbers in `dtype` ("float32" or "float64"), in place.

    Going down, thresholds go to the deciding side (`narrowed`) and leaves to the nearest.
    """
    tensors = {"nodes_splits": _tensor(node, "nodes_splits")}
    if dtype == "float32":
        compare, threshold = narrowed(_tensor(node, "nodes_modes"), tensors["nodes_splits"].astype(np.float64))
        tensors = {"nodes_modes": compare, "nodes_splits": threshold}
    for name in ("nodes_splits", "leaf_weights", "membership_values"):
        if name in node.attributes:
            tensors[name] = tensors.get(name, _tensor(node, name)).astype(dtype)
    for name, array in tensors.items():
        node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
