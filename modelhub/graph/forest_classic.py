"""Forests as TreeEnsembleRegressor (ai.onnx.ml 3), for engines older than TreeEnsemble and for leaves of many values.

    x ──► TreeEnsemble ──► (table of leaves) ──► (Add) ──► (Softmax) ──► y        x ──► TreeEnsembleRegressor ──► y

It adds the base and takes the softmax itself, which saves onnxruntime two small operators; its sigmoid is not used, as
that is 1 - p of the other side and leaves nothing of a small probability. It stores every number in float32; thresholds
stand on the deciding side, so that float32 rows are decided as before.
A forest that keeps float64 (`Builder.kept`) gets its numbers as tensors of float64, and the sum, which the operator
gives in float32, is cast back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import Unsupported, safe_text
from modelhub.graph.builder import KEPT, ML_OPSET
from modelhub.graph.forest import Compare, Forest, tree_of
from modelhub.graph.forest_attributes import Numbers, Strings
from modelhub.graph.forest_forms import Found, forests
from modelhub.graph.forest_onnx import narrowed

__all__ = ["CLASSIC_OPSET", "Tail", "classic", "decider", "tail_of"]

CLASSIC_OPSET = 3
"""The ai.onnx.ml operator set of the classic operators: the last one that does not call them deprecated."""

SMOOTH = {
    "Abs", "Add", "Cast", "Concat", "Div", "Exp", "Gather", "Gemm", "Identity", "Log", "Max", "Min", "Mul", "Neg",
    "Pow", "ReduceSum", "Reshape", "Sigmoid", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Unsqueeze",
}  # fmt: skip
"""Operators behind which a margin rounded to float32 changes an output by as little."""


def classic(model: ir.Model) -> None:
    """Put TreeEnsembleRegressor in the place of every TreeEnsemble, in place; the graph is in float32.

    Raises `Unsupported` where something is decided about the sum of a forest that keeps float64.
    """
    for found in forests(model):
        wide = KEPT in found.nodes[0].metadata_props
        if wide:
            _check_smooth(found)
        tail = Tail() if wide or not _all_fed(found.forest) else tail_of(found.margin, found.forest.outputs)
        attributes = _attributes(found.forest, wide=wide) | tail.attributes
        new = ir.node("TreeEnsembleRegressor", [found.x], attributes, domain="ai.onnx.ml")
        new.name = found.nodes[0].name
        replaced = (*found.nodes, *tail.nodes)
        old, result, last = replaced[-1].outputs[0], new.outputs[0], new
        result.name, result.shape, result.type = f"{old.name}_float32", old.shape, ir.TensorType(ir.DataType.FLOAT)
        nodes = [new]
        if wide:
            new.metadata_props[KEPT] = "yes"
            last = ir.node("Cast", [result], {"to": ir.DataType.DOUBLE.value}, name=f"{new.name}/Cast")
            last.outputs[0].type, last.outputs[0].shape = ir.TensorType(ir.DataType.DOUBLE), old.shape
            nodes.append(last)
        model.graph.insert_before(found.nodes[0], nodes)
        last.outputs[0].name, old.name = old.name, f"{old.name}_before"
        old.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
        constants = [v for node in replaced for v in node.inputs if v is not None and v.is_initializer()]
        for node in reversed(replaced):
            model.graph.remove(node, safe=True)
        for value in constants:
            if not value.uses():
                del model.graph.initializers[value.name or ""]
    if model.graph.opset_imports.get("ai.onnx.ml") == ML_OPSET:
        model.graph.opset_imports["ai.onnx.ml"] = CLASSIC_OPSET


@dataclass(frozen=True, eq=False)
class Tail:
    """What follows the sum of the trees and the classic operator does as well: `nodes`, as its `attributes`."""

    nodes: tuple[ir.Node, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


def tail_of(margin: ir.Value, outputs: int) -> Tail:
    """The addition of a base to the sums `margin` [events, outputs], and the softmax, where these have no other use."""
    nodes: list[ir.Node] = []
    attributes: dict[str, Any] = {}
    node = _only_user(margin)
    if node is not None and node.op_type == "Add":
        base = next(v for v in (*node.inputs, margin) if v is not margin)
        constant = None if base is None or base.const_value is None else base.const_value.numpy().ravel()
        if constant is not None and len(constant) == outputs:
            nodes.append(node)
            attributes["base_values"] = Numbers("base_values", constant.astype(np.float32))
            node = _only_user(node.outputs[0])
    if node is not None and node.op_type == "Softmax" and outputs > 1:
        axis = node.attributes.get("axis")
        if axis is None or axis.as_int() in (-1, 1):
            nodes.append(node)
            attributes["post_transform"] = "SOFTMAX"
    return Tail(tuple(nodes), attributes)


def _only_user(value: ir.Value) -> ir.Node | None:
    """The one node that takes `value`; None where there are several, or it is given out as well."""
    users = [use.node for use in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def decider(margin: ir.Value) -> ir.Node | None:
    """A node that decides about a sum of trees that keeps float64, before it is rounded at the end anyway."""
    todo, seen = [margin], set()
    while todo:
        for use in todo.pop().uses():
            if use.node in seen:
                continue
            seen.add(use.node)
            if use.node.op_type not in SMOOTH or use.node.domain not in ("", "ai.onnx"):
                return use.node
            todo += [output for output in use.node.outputs if KEPT in use.node.metadata_props]
    return None


def _check_smooth(found: Found) -> None:
    """Refuse a margin that something is decided about."""
    node = decider(found.margin)
    if node is not None:
        raise Unsupported(
            "the trees cannot be written in the classic form",
            [
                f"{safe_text(found.nodes[0].name)}: their sum would be rounded to float32 before "
                f"{safe_text(node.name)} ({safe_text(node.op_type)}) decides about it; write "
                "TreeEnsemble (no --form, no --opset)"
            ],
        )


_MODES: tuple[str, ...] = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def _attributes(forest: Forest, *, wide: bool) -> dict[str, Any]:
    """The attributes of the TreeEnsembleRegressor, in float64 if `wide`. Sets become chains of BRANCH_EQ."""
    tree = tree_of(forest)
    compare, threshold = forest.compare.copy(), forest.threshold.copy()
    if not wide:
        compare, narrow = narrowed(compare, threshold)
        threshold = narrow.astype(np.float64)
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
    values = np.append(threshold, extra.value)[order]
    columns |= {
        "target_treeids": tree[node],
        "target_nodeids": node,
        "target_ids": targets,
    }
    attributes: dict[str, Any] = {}
    for name, column in (("nodes_values", values), ("target_weights", weights)):
        if wide:
            attributes[f"{name}_as_tensor"] = ir.tensor(column)
        else:
            attributes[name] = Numbers(name, column.astype(np.float32))
    return attributes | {
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


def _all_fed(forest: Forest) -> bool:
    """Whether every output has a tree: onnxruntime adds no base to one that has none."""
    return forest.values.shape[1] > 1 or len(np.unique(forest.tree_output)) == forest.outputs


def _targets(
    forest: Forest, tree: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Weight, target and node of everything a leaf adds; zeros are left out, but each leaf adds something."""
    values = forest.values[forest.leaf[ends]] * forest.tree_weight[tree[ends], np.newaxis] / forest.divisor
    if values.shape[1] == 1:
        return values[:, 0], forest.tree_output[tree[ends]], ends
    kept = values != 0
    kept[:, 0] |= ~kept.any(axis=1)
    kept[tree[ends] == 0] = True  # onnxruntime adds no base to an output that no leaf of a row has a weight for
    row, target = np.nonzero(kept)
    return values[row, target], target, ends[row]
