"""TreeEnsembleRegressor and TreeEnsembleClassifier (ai.onnx.ml 1 to 3) as `Forest`.

What a file leaves open is taken as onnxruntime takes it (core/providers/cpu/ml/tree_ensemble_aggregator.h): the first
node of a tree is its root, weights of splits are not looked at, and a classifier whose weights all speak for one of two
classes has a rule of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.graph.forest import Compare, Forest, Link, Sets, tree_of
from modelhub.graph.forest_attributes import floats, ints, place_of, texts
from modelhub.graph.forest_forms import LARGEST_COUNT, with_targets, without
from modelhub.graph.forest_onnx import LARGEST_TABLE, check_depth

__all__ = ["CLASSIC", "Scores", "is_classic", "scores", "structure"]

CLASSIC = ("TreeEnsembleRegressor", "TreeEnsembleClassifier")

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "LEAF")
"""In the order of `Compare`."""

LONGEST_CHAIN = 1 << 16
"""Categories that one question may ask for."""

LINKS = {"NONE": Link(), "LOGISTIC": Link("sigmoid"), "SOFTMAX": Link("softmax")}


@dataclass(frozen=True, eq=False)
class Scores:
    """What a node gives as numbers: `forest`, its base and link included; for two classes by one sum also the first.

    rest: None, or what the first class has of `forest`'s one output p: "complement" 1 - p, "negative" -p.
    """

    forest: Forest
    rest: str | None = None


def is_classic(node: ir.Node) -> bool:
    """Whether a node is one of `CLASSIC`."""
    return node.domain == "ai.onnx.ml" and node.op_type in CLASSIC


def structure(node: ir.Node) -> Forest:
    """The trees of a node and the values of their leaves; base 0, no link. Raises `UnreadableFile`."""
    where = place_of(node)
    tree_id, node_id = ints(node, "nodes_treeids"), ints(node, "nodes_nodeids")
    count = len(tree_id)
    if len(node_id) != count:
        raise UnreadableFile(f"{where}: {count} trees for {len(node_id)} nodes")
    modes = texts(node, "nodes_modes", MODES, count)
    splits = modes != len(MODES) - 1
    starts = np.flatnonzero(np.diff(tree_id, prepend=tree_id[:1] - 1)) if count else np.zeros(0, np.int64)
    names = tree_id[starts]
    if len(np.unique(names)) != len(names):
        raise UnreadableFile(f"{where}: the nodes of a tree do not stand together")
    find = _finder(names, np.repeat(np.arange(len(starts)), np.diff(starts, append=count)), node_id, where)
    child = {
        side: np.where(splits, find(tree_id, ints(node, f"nodes_{side}nodeids", count)), -1)
        for side in ("true", "false")
    }
    for side, ends in child.items():
        if (splits & (ends < 0)).any():
            lost = int(node_id[np.argmax(splits & (ends < 0))])
            raise UnreadableFile(f"{where}: node {lost} has a {side} child that is not there")
    feature = ints(node, "nodes_featureids", count)
    if (splits & ((feature < 0) | (feature >= LARGEST_COUNT))).any():
        raise UnreadableFile(f"{where} asks for no known feature")
    missing: NDArray[Any] = np.zeros(count, np.bool_)
    if "nodes_missing_value_tracks_true" in node.attributes:
        tracks = ints(node, "nodes_missing_value_tracks_true")
        missing = ints(node, "nodes_missing_value_tracks_true", count) != 0 if len(tracks) else missing
    leaf = np.where(splits, -1, np.cumsum(~splits) - 1)
    forest = Forest(
        features=int(np.where(splits, feature, 0).max(initial=0)) + 1,
        feature=np.where(splits, feature, -1).astype(np.int32),
        compare=np.where(splits, modes, 0).astype(np.uint8),
        threshold=np.where(splits, floats(node, "nodes_values", count), 0),
        true_child=child["true"],
        false_child=child["false"],
        missing=missing & splits,
        leaf=leaf,
        values=np.zeros((int((~splits).sum()), 1)),
        roots=starts,
        tree_output=np.zeros(len(starts), np.int64),
        tree_weight=np.ones(len(starts)),
        base=np.zeros(_outputs(node)),
        dtype="float64",
    )
    forest = _folded(forest, where).checked(where)
    check_depth(forest)
    return _with_values(node, forest, lambda *ids: leaf[_found(find(*ids), where)], where)


def _found(place: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    if (place < 0).any():
        raise UnreadableFile(f"{where}: a weight belongs to a node that is not there")
    return place


def _folded(forest: Forest, where: str) -> Forest:
    """The forest with every chain of equalities that share their true child as one question for a set.

    ::

        x == 3 ? yes : (x == 5 ? yes : no)                x in {3, 5} ? yes : no
    """
    nodes, false = forest.nodes, forest.false_child
    inside = (forest.true_child < nodes) & (false < nodes)
    asks = forest.splits & (forest.compare == Compare.EQ) & (forest.threshold == np.floor(forest.threshold)) & inside
    parents = np.bincount(np.concatenate([c[c >= 0] for c in (forest.true_child, false)]), minlength=nodes)
    after = np.where(asks, false, 0)
    linked = asks & asks[after] & (parents[after] == 1)
    for column in (forest.feature, forest.true_child, forest.missing):
        linked &= column == column[after]
    if not linked.any():
        return forest
    inner = np.zeros(nodes, np.bool_)
    inner[after[linked]] = True
    head = np.flatnonzero(linked & ~inner)
    owner, member, last = [head], [forest.threshold[head]], head.copy()
    going = np.arange(len(head))
    for _ in range(LONGEST_CHAIN):
        going = going[linked[last[going]]]
        if not len(going):
            break
        last[going] = after[last[going]]
        owner.append(head[going])
        member.append(forest.threshold[last[going]])
    else:
        raise Unsupported(f"{where} has a chain of more than {LONGEST_CHAIN} categories")
    owners, members = np.concatenate(owner), np.concatenate(member)
    order = np.argsort(owners, kind="stable")
    compare, false = forest.compare.copy(), false.copy()
    compare[head], false[head] = Compare.MEMBER, false[last]
    sets = Sets.of(np.bincount(owners, minlength=nodes), members[order])
    return without(replace(forest, compare=compare, false_child=false, sets=sets), inner)


def _finder(names: NDArray[np.int64], tree: NDArray[np.int64], node_id: NDArray[np.int64], where: str) -> Any:
    """A function (tree ids, node ids) -> places of these nodes, -1 where there is none."""
    order = np.argsort(names)
    known = np.unique(node_id)
    key = tree * len(known) + np.searchsorted(known, node_id)
    by_key = np.argsort(key, kind="stable")
    sorted_key = key[by_key]
    if (np.diff(sorted_key) == 0).any():
        raise UnreadableFile(f"{where}: two nodes of a tree have one id")

    def find(tree_id: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(names):
            return np.full(len(ids), -1)
        at = order[np.minimum(np.searchsorted(names, tree_id, sorter=order), len(names) - 1)]
        code = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        wanted = at * len(known) + code
        place = np.minimum(np.searchsorted(sorted_key, wanted), len(sorted_key) - 1)
        found = (names[at] == tree_id) & (known[code] == ids) & (sorted_key[place] == wanted)
        return np.where(found, by_key[place], -1)

    return find


def _outputs(node: ir.Node) -> int:
    if node.op_type == "TreeEnsembleRegressor":
        attribute = node.attributes.get("n_targets")
        count = 1 if attribute is None or attribute.type != ir.AttributeType.INT else attribute.as_int()
    else:
        names = [node.attributes.get(f"classlabels_{kind}s") for kind in ("int64", "string")]
        count = max((len(name.value) for name in names if name is not None and name.value is not None), default=0)
    if not 0 < count <= LARGEST_COUNT:
        raise UnreadableFile(f"{place_of(node)} has {count} outputs")
    return count


def _with_values(node: ir.Node, forest: Forest, row_of: Any, where: str) -> Forest:
    """The forest with the values of its leaves: all weights of a leaf for an output added up."""
    word = "target" if node.op_type == "TreeEnsembleRegressor" else "class"
    target = ints(node, f"{word}_ids")
    count = len(target)
    if ((target < 0) | (target >= forest.outputs)).any():
        raise UnreadableFile(f"{where} has a leaf for an output that is not there")
    row = row_of(ints(node, f"{word}_treeids", count), ints(node, f"{word}_nodeids", count))
    weight = floats(node, f"{word}_weights", count)
    row, target, weight = (column[row >= 0] for column in (row, target, weight))
    leaves = len(forest.values)
    if len(np.unique(row)) == len(row):  # one weight for a leaf at most
        values, feeds = np.zeros((leaves, 1)), np.zeros(leaves, np.int64)
        values[row, 0], feeds[row] = weight, target
        silent = np.ones(leaves, np.bool_)
        silent[row] = False
        ends = np.flatnonzero(~forest.splits)
        tree = tree_of(forest)[ends]
        of_tree = np.zeros(forest.trees, np.int64)
        speaks = ~silent[forest.leaf[ends]]
        of_tree[tree[speaks]] = feeds[forest.leaf[ends[speaks]]]
        feeds[forest.leaf[ends[~speaks]]] = of_tree[tree[~speaks]]  # a leaf without a weight adds 0 to any output
        return with_targets(replace(forest, values=values), feeds, where).checked(where)
    if leaves * forest.outputs > LARGEST_TABLE:
        raise Unsupported(f"{where}: {leaves} leaves of {forest.outputs} values are too many")
    values = np.zeros((leaves, forest.outputs))
    np.add.at(values, (row, target), weight)
    return replace(forest, values=values).checked(where)


def scores(node: ir.Node) -> Scores:
    """The numbers of a node. Raises `Unsupported` for aggregations and transformations that are no sum and no link."""
    where = place_of(node)
    forest = structure(node)
    transform, aggregate = _text(node, "post_transform", "NONE"), _text(node, "aggregate_function", "SUM")
    link = LINKS.get(transform)
    if link is None or aggregate not in ("SUM", "AVERAGE"):
        raise Unsupported(f"{where}: {aggregate} of the trees and {transform} behind it")
    base = (
        floats(node, "base_values")
        if {"base_values", "base_values_as_tensor"} & node.attributes.keys()
        else np.zeros(0)
    )
    if aggregate == "AVERAGE":
        forest = replace(forest, divisor=float(max(forest.trees, 1)))
    if node.op_type == "TreeEnsembleRegressor":
        if len(base) not in (0, forest.outputs):
            raise Unsupported(f"{where}: {len(base)} base values for {forest.outputs} outputs")
        return Scores(replace(forest, base=_added(node, forest, base), link=link))
    spoken_for = np.unique(ints(node, "class_ids"))
    if forest.outputs == 2 and len(spoken_for) == 1:
        return _one_of_two(node, forest, base, transform)
    if len(base) not in ((0,) if forest.outputs == 2 else (0, forest.outputs)):
        raise Unsupported(f"{where}: {len(base)} base values for {forest.outputs} classes")
    return Scores(replace(forest, base=_added(node, forest, base), link=link))


def _added(node: ir.Node, forest: Forest, base: NDArray[np.float64]) -> NDArray[np.float64]:
    """The base [outputs] that onnxruntime adds: of several outputs to those alone that a leaf has a weight for.

    Raises `Unsupported` where that depends on the row.
    """
    if not base.any() or forest.outputs == 1:
        return base if len(base) else forest.base
    word = "target" if node.op_type == "TreeEnsembleRegressor" else "class"
    split = np.array([ints(node, "nodes_treeids"), ints(node, "nodes_nodeids")])
    given = np.array([ints(node, f"{word}_treeids"), ints(node, f"{word}_nodeids")])
    count = split.shape[1]
    _, place = np.unique(np.concatenate([split, given], axis=1), axis=1, return_inverse=True)
    place = place.ravel()
    _, tree = np.unique(split[0], return_inverse=True)
    ends = texts(node, "nodes_modes", MODES, count) == len(MODES) - 1
    result, target = base.copy(), ints(node, f"{word}_ids")
    for output in np.flatnonzero(base):
        speaks = np.isin(place[:count], place[count:][target == output]) & ends
        silent = np.bincount(tree, ends & ~speaks)
        if not speaks.any():
            result[output] = 0
        elif silent.all():
            raise Unsupported(f"{place_of(node)}: onnxruntime adds the base of output {output} to some rows only")
    return result


def _one_of_two(node: ir.Node, forest: Forest, base: NDArray[np.float64], transform: str) -> Scores:
    """Two classes by one sum: a probability where no weight is negative, else a margin."""
    positive = bool((floats(node, "class_weights") >= 0).all())
    if len(base) > 1 or transform not in (("NONE",) if positive else ("NONE", "LOGISTIC")):
        raise Unsupported(f"{place_of(node)}: {transform} and {len(base)} base values for one of two classes")
    if forest.values.shape[1] > 1:
        forest = replace(forest, values=forest.values.sum(axis=1, keepdims=True))
    one = replace(
        forest,
        base=base if len(base) else np.zeros(1),
        tree_output=np.zeros_like(forest.tree_output),
        link=LINKS[transform],
    )
    return Scores(one, "complement" if positive or transform == "LOGISTIC" else "negative")


def _text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type != ir.AttributeType.STRING:
        return default
    try:
        return attribute.as_string()
    except TypeError:
        raise UnreadableFile(f"{place_of(node)}: {name} is not UTF-8 text") from None
