"""scikit-learn's trees as `Forest`: a row is rounded to float32 and goes left where ``x <= threshold`` (float64).

Source: sklearn/tree/_tree.pyx, Tree._apply_dense; sklearn/tree/_classes.py; sklearn/ensemble/_forest.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph import forest_onnx
from modelhub.graph.forest import Compare, Forest
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, apply, class_index, converts, method_of

__all__ = [
    "CLASSIFIERS",
    "PLAIN",
    "REGRESSORS",
    "Tree",
    "class_fractions",
    "grown",
    "isolation_trees",
    "leaf_classes",
    "leaf_values",
    "margins",
    "mean_of_trees",
    "one_hot",
    "planted",
    "tree_of",
]

CLASSIFIERS = ("sklearn.tree._classes.DecisionTreeClassifier", "sklearn.tree._classes.ExtraTreeClassifier")
REGRESSORS = ("sklearn.tree._classes.DecisionTreeRegressor", "sklearn.tree._classes.ExtraTreeRegressor")


FORESTS = "sklearn.ensemble._forest."
BAGGING = "sklearn.ensemble._bagging."

PLAIN = {
    *CLASSIFIERS,
    *REGRESSORS,
    *(f"{FORESTS}{kind}{what}" for kind in ("RandomForest", "ExtraTrees") for what in ("Classifier", "Regressor")),
    *(f"sklearn.ensemble.{name}" for name in ("_gb.GradientBoostingClassifier", "_gb.GradientBoostingRegressor")),
    *(f"{BAGGING}Bagging{what}" for what in ("Classifier", "Regressor")),
    "sklearn.ensemble._weight_boosting.AdaBoostClassifier",
    "sklearn.ensemble._iforest.IsolationForest",
}
"""What asks nothing but a tree's questions about the row itself, as long as all inside of it is of this kind too."""


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree: arrays over its nodes, children counted from its first node, -1 at leaves."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    samples: NDArray[np.float64]
    """Training rows in each node."""
    values: NDArray[np.float64]
    """[nodes, outputs, classes or 1]"""
    features: int


def tree_of(e: Estimator) -> Tree:
    """The tree of an estimator of `CLASSIFIERS` or `REGRESSORS`."""
    tree = e.part("tree_")
    nodes = tree.get("nodes")
    wanted = ("left_child", "right_child", "feature", "threshold", "n_node_samples")
    names = nodes.dtype.names if isinstance(nodes, np.ndarray) else None
    if names is None or nodes.ndim != 1 or not set(wanted) <= set(names):
        raise tree.broken("'nodes' is not a table of nodes")
    if any(nodes.dtype[name].kind not in "iufb" or nodes.dtype[name].shape for name in names):
        raise tree.broken("'nodes' is not a table of numbers")
    left, right, feature = (nodes[name].astype(np.int64) for name in wanted[:3])
    # Before 1.3 trees knew no missing values, and scikit-learn refused NaN
    missing = nodes["missing_go_to_left"] != 0 if "missing_go_to_left" in names else np.zeros(len(nodes), np.bool_)
    return Tree(
        left=left,
        right=np.where(left < 0, -1, right),
        feature=feature,
        threshold=nodes["threshold"].astype(np.float64),
        missing_left=missing,
        samples=nodes["n_node_samples"].astype(np.float64),
        values=tree.array("values", len(nodes), None, None),
        features=tree.whole("n_features"),
    )


def planted(trees: Sequence[Tree], values: Sequence[NDArray[np.float64]], features: int) -> Forest:
    """A forest of `trees` with `values` [nodes, width] for each; the sum of all, base 0, over [N, features]."""
    sizes = np.array([len(tree.left) for tree in trees], np.int64)
    first = np.cumsum(sizes) - sizes
    shift = np.repeat(first, sizes)
    left, right, feature = (
        np.concatenate([getattr(tree, name) for tree in trees]) for name in ("left", "right", "feature")
    )
    threshold, missing = (
        np.concatenate([getattr(tree, name) for tree in trees]) for name in ("threshold", "missing_left")
    )
    is_leaf = left < 0
    # A child outside of its tree must not land in another one: it is sent out of the forest, where `checked` sees it
    limit = np.repeat(sizes, sizes)
    left, right = (np.where(child < limit, child + shift, sizes.sum()) for child in (left, right))
    table = np.concatenate(values)
    nothing = np.full(len(left), -1, np.int64)
    return Forest(
        features=features,
        feature=np.where(is_leaf, -1, np.clip(feature, -1, 2**31 - 1)).astype(np.int32),
        compare=np.where(is_leaf, 0, Compare.LE).astype(np.uint8),
        threshold=np.where(is_leaf, 0, threshold),
        true_child=np.where(is_leaf, nothing, left),
        false_child=np.where(is_leaf, nothing, right),
        missing=missing & ~is_leaf,
        leaf=np.where(is_leaf, np.cumsum(is_leaf) - 1, -1),
        values=table[is_leaf],
        roots=first,
        tree_output=np.zeros(len(trees), np.int64),
        tree_weight=np.ones(len(trees)),
        base=np.zeros(table.shape[1]),
        dtype="float32",
    )


def margins(e: Estimator, forest: Forest, x: Rows) -> Rows:
    """The sums of a forest as rows, once it is found sound. Where no row has a NaN, its nodes send none anywhere."""
    if not x.missing:
        forest = replace(forest, missing=np.zeros(forest.nodes, np.bool_))
    return Rows(x.b, forest_onnx.margins(x.b, forest.checked(e.place), x.value), forest.outputs)


def grown(e: Estimator, key: str, features: int, columns: str = "") -> list[Tree]:
    """The trees of a list of tree estimators; `columns` names the list of columns each looks at, if they differ."""
    trees = [tree_of(part) for part in e.parts(key)]
    if not columns or not e.has(columns):
        if any(tree.features != features for tree in trees):
            raise e.broken(f"a tree of {key!r} has not {features} features")
        return trees
    places = e.indices(columns, features)
    if len(places) != len(trees):
        raise e.broken(f"{len(places)} lists of columns for {len(trees)} trees")
    return [_moved(e, tree, place) for tree, place in zip(trees, places, strict=True)]


def _moved(e: Estimator, tree: Tree, place: NDArray[np.int64]) -> Tree:
    """The tree with features counted in the whole row."""
    splits = tree.left >= 0
    if splits.any() and not 0 <= tree.feature[splits].min() <= tree.feature[splits].max() < len(place):
        raise e.broken("a tree asks for a column that it was not given")
    feature = np.where(splits, place[np.where(splits, tree.feature, 0)] if len(place) else -1, -1)
    return replace(tree, feature=feature)


def class_fractions(e: Estimator, tree: Tree, classes: int) -> NDArray[np.float64]:
    """Probabilities [nodes, classes] in every node of a classifier's tree.

    Since 1.3 a tree holds fractions, and predict_proba returns them as they are; before, it held counts.
    """
    if tree.values.shape[1] != 1:
        raise e.refused("several targets at once are not supported; convert the classifier of each")
    if tree.values.shape[2] < classes:
        raise e.broken(f"a tree of {tree.values.shape[2]} classes, and {classes} labels")
    values = tree.values[:, 0, :classes]
    if (0,) < e.version < (1, 3):
        total = values.sum(axis=1, keepdims=True)
        values = values / np.where(total == 0, 1, total)
    return values


def leaf_classes(e: Estimator, tree: Tree, classes: int) -> NDArray[np.int64]:
    """The predicted class in every node: the first of the largest."""
    return np.asarray(np.argmax(class_fractions(e, tree, classes), axis=1), np.int64)


def leaf_values(e: Estimator, tree: Tree) -> NDArray[np.float64]:
    """Predictions [nodes, targets] in every node of a regressor's tree."""
    if tree.values.shape[2] != 1:
        raise e.broken("a regression tree with classes")
    return tree.values[:, :, 0]


@converts("predict_proba", *CLASSIFIERS, decides=True)
@converts("predict", *REGRESSORS, decides=True)
@converts("predict_proba", f"{FORESTS}RandomForestClassifier", f"{FORESTS}ExtraTreesClassifier", decides=True)
@converts("predict", f"{FORESTS}RandomForestRegressor", f"{FORESTS}ExtraTreesRegressor", decides=True)
def trees(e: Estimator, x: Rows) -> Rows:
    """The mean of the trees."""
    return margins(e, mean_of_trees(e, x.width), x)


def mean_of_trees(e: Estimator, features: int) -> Forest:
    """The forest of one tree or of a list of them: the mean of fractions or values."""
    if e.name in CLASSIFIERS + REGRESSORS:
        members, grove = [e], [tree_of(e)]
        if grove[0].features != features:
            raise e.broken(f"a tree of {grove[0].features} features for {features}")
    else:
        members, grove = e.parts("estimators_"), grown(e, "estimators_", features, "estimators_features_")
    values = [
        _member_fractions(e, member, tree) if member.name in CLASSIFIERS else leaf_values(member, tree)
        for member, tree in zip(members, grove, strict=True)
    ]
    if len({value.shape[1] for value in values}) != 1:
        raise e.broken("trees of different outputs")
    return replace(planted(grove, values, features), divisor=float(len(grove)))


def _member_fractions(e: Estimator, member: Estimator, tree: Tree) -> NDArray[np.float64]:
    """Probabilities [nodes, classes] of one tree of a forest; target after target, where there are several."""
    sizes = [len(labels) for labels in e.targets]
    if len(sizes) == 1:
        return spread(e, member, class_fractions(member, tree, len(member.classes)))
    if tree.values.shape[1] != len(sizes) or tree.values.shape[2] < max(sizes):
        raise e.broken(f"a tree of {tree.values.shape[1]} targets, and there are {len(sizes)}")
    if (0,) < member.version < (1, 3):
        raise e.refused("several targets of scikit-learn before 1.3 are not supported; save it anew with a later one")
    return np.concatenate([tree.values[:, target, :size] for target, size in enumerate(sizes)], axis=1)


def spread(e: Estimator, member: Estimator, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of a member that may not have met all classes, put in the place its labels (indices) say."""
    count = len(e.classes)
    if len(member.classes) == count:
        return values
    place = e.columns(member.classes, "classes_ of a member", count)
    result = np.zeros((len(values), count))
    result[:, place] = values
    return result


@converts("predict_proba", f"{BAGGING}BaggingClassifier", decides=True)
def bagging_classifier(e: Estimator, x: Rows) -> Rows:
    """The mean of probabilities, or of votes where a member has none (sklearn/ensemble/_bagging.py)."""
    members, count = e.parts("estimators_"), len(e.classes)
    if all(member.name in CLASSIFIERS for member in members):
        return trees(e, x)
    total = None
    for index, (member, columns) in enumerate(zip(members, _columns(e, x), strict=True)):
        part = x.take(columns)
        if method_of(member, ("predict_proba", "decision_function")) == "predict_proba":
            vote = apply(member, part, "predict_proba", f"{member.short}_{index}")
        else:
            winner = x.b.op("Unsqueeze", class_index(member, part), x.b.ints(1))
            vote = one_hot(x, winner, len(member.classes))
        vote = vote.times(spread(e, member, np.eye(len(member.classes))))
        total = vote if total is None else total.op("Add", vote)
    assert total is not None
    return Rows(x.b, total.value, count).op("Div", len(members))


def one_hot(x: Rows, winner: ir.Value, count: int) -> Rows:
    """[N, count] 1 in the column that `winner` [N, 1] names, else 0."""
    return x.number(x.b.op("Equal", winner, x.b.constant(np.arange(count), "labels")), count)


@converts("predict", f"{BAGGING}BaggingRegressor", decides=True)
def bagging_regressor(e: Estimator, x: Rows) -> Rows:
    """The mean of predictions."""
    members = e.parts("estimators_")
    if all(member.name in REGRESSORS for member in members):
        return trees(e, x)
    total = None
    for index, (member, columns) in enumerate(zip(members, _columns(e, x), strict=True)):
        part = apply(member, x.take(columns), "predict", f"{member.short}_{index}")
        total = part if total is None else total.op("Add", part)
    assert total is not None
    return total.op("Div", len(members))


def _columns(e: Estimator, x: Rows) -> list[NDArray[np.int64]]:
    places = e.indices("estimators_features_", x.width)
    if len(places) != len(e.parts("estimators_")):
        raise e.broken("not one list of columns for every member")
    return places


@converts("decision_function", "sklearn.ensemble._iforest.IsolationForest", decides=True)
def isolation_forest(e: Estimator, x: Rows) -> Rows:
    """``-2^(-depth / c(samples)) - offset``: the mean depth of the leaf, as if split on to single rows.

    Source: sklearn/ensemble/_iforest.py, _compute_score_samples and _average_path_length.
    """
    scale = float(_average_path(np.array([float(e.whole("_max_samples"))]))[0])
    depth = margins(e, isolation_trees(e, x.width), x)
    power = depth.op("Mul", -np.log(2) / scale) if scale else depth.op("Mul", 0).op("Sub", np.log(2))
    return power.op("Exp").op("Neg").op("Sub", e.number("offset_"))


def isolation_trees(e: Estimator, features: int) -> Forest:
    """The mean depth."""
    grove = grown(e, "estimators_", features, "estimators_features_" if e.whole("_max_features") < features else "")
    values = [_depth(e, tree)[:, np.newaxis] for tree in grove]
    return replace(planted(grove, values, features), divisor=float(len(grove)))


def _depth(e: Estimator, tree: Tree) -> NDArray[np.float64]:
    """Edges from the root to every node, plus what the rows in it would need to be told apart."""
    depth = np.zeros(len(tree.left))
    level = np.array([0], np.int64)
    for edges in range(len(tree.left)):
        depth[level] = edges
        level = np.concatenate([tree.left[level], tree.right[level]])
        level = level[level >= 0]
        if not level.size:
            return depth + _average_path(tree.samples)
        if level.max() >= len(tree.left) or level.size > len(tree.left):
            raise e.broken("a node has a child that is not there, or one of two parents")
    raise e.broken("a tree that turns in circles")


def _average_path(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    many = np.maximum(samples, 3)
    path = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(samples <= 1, 0.0, np.where(samples == 2, 1.0, path))
