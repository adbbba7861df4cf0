"""The written forms of a forest, and the way back from a graph to `Forest`.

`retype` and `classic` keep every decision about a float32 row; `forests` finds the forests in a graph for the writers
of other formats. `forest_onnx` draws the pattern they look for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import Unsupported, safe_text
from modelhub.graph.builder import ML_OPSET
from modelhub.graph.forest import Compare, Forest, Link, Sets, tree_of
from modelhub.graph.forest_attributes import Numbers, Strings, ints
from modelhub.graph.forest_onnx import narrowed

__all__ = ["CLASSIC_OPSET", "Found", "classic", "forest_at", "forests", "retype"]

CLASSIC_OPSET = 3
"""The ai.onnx.ml operator set of the classic operators: the last one that does not call them deprecated."""


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
    chain = [node]
    for op_type in ("Cast", "Add", "Gather", "ReduceSum"):
        users = [use.node for use in chain[-1].outputs[0].uses()]
        if len(users) != 1 or users[0].op_type != op_type:
            return Found(forest, x, node.outputs[0], (node,))
        chain.append(users[0])
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
    return Found(forest.checked("the graph"), x, chain[-1].outputs[0], tuple(chain))


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
    if (output[tree[ends]] != targets[forest.leaf[ends]]).any():
        raise Unsupported(f"{where} has a tree that feeds several outputs")
    return replace(forest, tree_output=output).checked(where)


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


_MODES: tuple[str, ...] = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def classic(model: ir.Model) -> None:
    """Put TreeEnsembleRegressor (ai.onnx.ml 3) in the place of every TreeEnsemble, in place; the graph is in float32.

    It knows leaves of several values, so a table of leaves goes away, and engines older than ai.onnx.ml 5 know it.
    """
    for found in forests(model):
        new = ir.node("TreeEnsembleRegressor", [found.x], _classic(found.forest), domain="ai.onnx.ml")
        new.name = found.nodes[0].name
        model.graph.insert_before(found.nodes[0], new)
        old, result = found.margin, new.outputs[0]
        result.name, result.shape, result.type = old.name, old.shape, ir.TensorType(ir.DataType.FLOAT)
        old.name = f"{old.name}_before"
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        constants = [v for node in found.nodes for v in node.inputs if v is not None and v.is_initializer()]
        for node in reversed(found.nodes):
            model.graph.remove(node, safe=True)
        for value in constants:
            if not value.uses():
                del model.graph.initializers[value.name or ""]
    if model.graph.opset_imports.get("ai.onnx.ml") == ML_OPSET:
        model.graph.opset_imports["ai.onnx.ml"] = CLASSIC_OPSET


def _classic(forest: Forest) -> dict[str, Any]:
    """The attributes of the TreeEnsembleRegressor in float32. Sets become chains of BRANCH_EQ with one true child."""
    tree = tree_of(forest)
    compare, threshold = narrowed(forest.compare, forest.threshold)
    extra = _equalities(forest)
    compare[forest.compare == Compare.MEMBER], threshold[extra.head] = Compare.EQ, extra.head_value
    empty = (forest.compare == Compare.MEMBER) & ~np.isin(np.arange(forest.nodes), extra.head)
    compare[empty], threshold[empty] = Compare.LT, -np.inf
    false = forest.false_child.copy()
    false[extra.head] = extra.head_false
    modes = np.append(np.where(forest.splits, compare, len(_MODES)), np.full(len(extra.owner), Compare.EQ)).astype(int)
    ends = np.flatnonzero(~forest.splits)
    weights, targets, node = _targets(forest, tree, ends)
    tree = np.append(tree, tree[extra.owner])
    columns = {
        "treeids": tree,
        "nodeids": np.arange(len(tree)),
        "featureids": np.maximum(np.append(forest.feature, forest.feature[extra.owner]), 0),
        "values": np.append(threshold, extra.value.astype(np.float32)),
        "truenodeids": np.maximum(np.append(forest.true_child, forest.true_child[extra.owner]), 0),
        "falsenodeids": np.maximum(np.append(false, extra.false), 0),
        "missing_value_tracks_true": np.append(forest.missing, forest.missing[extra.owner]).astype(int),
    }
    # onnxruntime takes the first node of a tree for its root, and a change of tree id for a new tree
    # (core/providers/cpu/ml/tree_ensemble_common.h)
    below = np.ones(len(tree), np.bool_)
    below[forest.roots] = False
    order = np.lexsort((below, tree))
    columns = {f"nodes_{name}": column[order] for name, column in columns.items()}
    columns |= {
        "target_treeids": tree[node],
        "target_nodeids": node,
        "target_ids": targets,
        "target_weights": weights.astype(np.float32),
    }
    return {
        "n_targets": forest.outputs,
        "nodes_modes": Strings("nodes_modes", modes[order], (*_MODES, "LEAF")),
        **{name: Numbers(name, column) for name, column in columns.items()},
    }


@dataclass(frozen=True, eq=False)
class _Chains:
    """Sets as chains of equalities: the MEMBER node `head` asks for the first member, new nodes for the others."""

    head: NDArray[np.int64]
    head_value: NDArray[np.float64]
    head_false: NDArray[np.int64]
    owner: NDArray[np.int64]
    """[new nodes] the head of the chain they belong to."""
    value: NDArray[np.float64]
    false: NDArray[np.int64]


def _equalities(forest: Forest) -> _Chains:
    none = np.zeros(0, np.int64)
    if forest.sets is None:
        return _Chains(none, np.zeros(0), none, none, np.zeros(0), none)
    sizes = np.where(forest.compare == Compare.MEMBER, np.diff(forest.sets.start), 0)
    head = np.flatnonzero(sizes)
    more = sizes[head] - 1
    first_new = forest.nodes + np.cumsum(more) - more
    head_false = np.where(more > 0, first_new, forest.false_child[head])
    owner = np.repeat(head, more)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(more) - more, more)
    last = step == np.repeat(more, more) - 1
    following = np.where(last, forest.false_child[owner], forest.nodes + np.arange(len(owner)) + 1)
    members = forest.sets.members
    return _Chains(
        head,
        members[forest.sets.start[head]],
        head_false,
        owner,
        members[forest.sets.start[owner] + 1 + step],
        following,
    )


def _targets(
    forest: Forest, tree: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Weight, target and node of everything a leaf adds; zeros are left out, but each leaf adds something."""
    values = forest.values[forest.leaf[ends]] * forest.tree_weight[tree[ends], np.newaxis] / forest.divisor
    if values.shape[1] == 1:
        return values[:, 0], forest.tree_output[tree[ends]], ends
    kept = values != 0
    kept[:, 0] |= ~kept.any(axis=1)
    row, target = np.nonzero(kept)
    return values[row, target], target, ends[row]
