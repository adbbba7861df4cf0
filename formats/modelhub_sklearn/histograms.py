"""Histogram gradient boosting: float64 thresholds, missing values and categories, the link of the loss.

Source: sklearn/ensemble/_hist_gradient_boosting: _predictor.pyx (_predict_one_from_raw_data), gradient_boosting.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import Compare, Forest, Link, Sets
from modelhub.graph.forest_onnx import LARGEST_CATEGORY
from modelhub_sklearn.boosting import both_classes, linked
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts
from modelhub_sklearn.trees import Tree, margins, planted

__all__ = ["NAMES", "histogram_trees"]

MODULE = "sklearn.ensemble._hist_gradient_boosting.gradient_boosting."
CLASSIFIER = f"{MODULE}HistGradientBoostingClassifier"
REGRESSOR = f"{MODULE}HistGradientBoostingRegressor"

NAMES = (CLASSIFIER, REGRESSOR)

LINKS = {
    "squared_error": Link(),
    "least_squares": Link(),
    "absolute_error": Link(),
    "least_absolute_deviation": Link(),
    "quantile": Link(),
    "poisson": Link("exp"),
    "gamma": Link("exp"),
}

FIELDS = ("value", "feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf", "is_categorical")


@converts("decision_function", CLASSIFIER, decides=True)
def raw(e: Estimator, x: Rows) -> Rows:
    """Margins [N, 1] for two classes, [N, classes] for more."""
    count = len(e.classes)
    forest = histogram_trees(e, x.width, 1 if count == 2 else count)
    return margins(e, forest, _whole(forest, x))


@converts("predict_proba", CLASSIFIER, decides=True)
def classifier(e: Estimator, x: Rows) -> Rows:
    """Sigmoid for two classes, softmax for more."""
    margin = raw(e, x)
    return linked(margin, Link("softmax")) if margin.width > 1 else both_classes(linked(margin, Link("sigmoid")))


@converts("predict", REGRESSOR, decides=True)
def regressor(e: Estimator, x: Rows) -> Rows:
    """The margin behind the link of the loss: exp for poisson and gamma."""
    loss = e.text("loss")
    if loss not in LINKS:
        raise e.refused(f"the loss {loss[:40]!r} is not known")
    forest = histogram_trees(e, x.width, 1)
    return linked(margins(e, forest, _whole(forest, x)), LINKS[loss])


UNKNOWN = float(2 * LARGEST_CATEGORY)
"""A number that is in no set of categories."""


def _whole(forest: Forest, x: Rows) -> Rows:
    """Rows whose categories are whole numbers: what is none of them becomes `UNKNOWN`, NaN stays.

    The sets of a TreeEnsemble mean equality, but onnxruntime 1.32 cuts 2.5 to 2 before it looks into some of them.
    """
    if forest.sets is None:
        return x
    columns = np.zeros(x.width, np.bool_)
    columns[forest.feature[forest.splits & (forest.compare == Compare.MEMBER)]] = True
    broken = x.b.op("Greater", x.op("Sub", x.op("Floor")).value, x.b.constant(np.zeros(1), "zero"))
    large = x.b.op("Greater", x.op("Abs").value, x.b.constant(np.full(1, float(LARGEST_CATEGORY)), "largest"))
    unknown = x.b.op("And", x.b.op("Or", broken, large), x.b.constant(columns, "categorical"))
    return x.where(unknown, np.full(1, UNKNOWN))


def histogram_trees(e: Estimator, features: int, outputs: int) -> Forest:
    """The sum of the trees on top of the start."""
    rounds = e.items("_predictors")
    if not rounds or not all(isinstance(members, list | tuple) and len(members) == outputs for members in rounds):
        raise e.broken(f"not {outputs} trees in every iteration")
    predictors: list[Any] = [predictor for members in rounds for predictor in members]
    if not all(isinstance(predictor, Estimator) for predictor in predictors):
        raise e.broken("'_predictors' are not trees")
    tables = [_nodes(predictor) for predictor in predictors]
    order, categories = _columns(e, features)
    trees = [_tree(e, table, order) for table in tables]
    forest = planted(trees, [tree.values[:, :, 0] for tree in trees], features)
    forest = replace(
        forest,
        tree_output=np.arange(len(trees)) % outputs,
        base=e.array("_baseline_prediction").reshape(-1),
        dtype="float64",
    )
    if len(forest.base) != outputs:
        raise e.broken(f"a start of {len(forest.base)} numbers for {outputs} outputs")
    return _with_sets(e, forest, predictors, tables, categories)


def _nodes(predictor: Estimator) -> NDArray[Any]:
    nodes: NDArray[Any] = predictor.get("nodes")
    names = nodes.dtype.names if isinstance(nodes, np.ndarray) else None
    if names is None or nodes.ndim != 1 or not len(nodes) or not set(FIELDS) <= set(names):
        raise predictor.broken("'nodes' is not a table of nodes")
    if any(nodes.dtype[name].kind not in "iufb" or nodes.dtype[name].shape for name in names):
        raise predictor.broken("'nodes' is not a table of numbers")
    return nodes


def _tree(e: Estimator, nodes: NDArray[Any], order: NDArray[np.int64]) -> Tree:
    is_leaf = nodes["is_leaf"] != 0
    feature = np.where(is_leaf, 0, nodes["feature_idx"].astype(np.int64))
    if feature.min() < 0 or feature.max() >= len(order):
        raise e.broken("a node asks for no known feature")
    child = [np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right")]
    return Tree(
        left=child[0],
        right=child[1],
        feature=order[feature],
        threshold=nodes["num_threshold"].astype(np.float64),
        missing_left=nodes["missing_go_to_left"] != 0,
        samples=np.zeros(len(nodes)),
        values=nodes["value"].astype(np.float64)[:, np.newaxis, np.newaxis],
        features=len(order),
    )


def _columns(e: Estimator, features: int) -> tuple[NDArray[np.int64], dict[int, NDArray[np.float64]]]:
    """The column each feature of the trees is, and the categories of those that are categorical, by code.

    Since 1.4 a ColumnTransformer puts the categorical columns first, as codes of an OrdinalEncoder.
    """
    plain = np.arange(features)
    if not e.has("is_categorical_") or not e.array("is_categorical_", features).any():
        return plain, {}
    if not e.has("_preprocessor"):
        raise e.refused("categories of scikit-learn before 1.4 are not supported; save it anew with a later one")
    chosen = e.array("is_categorical_", features) != 0
    steps = e.part("_preprocessor").items("transformers_")
    encoder = steps[0][1] if steps and isinstance(steps[0], tuple) and len(steps[0]) == 3 else None
    if not isinstance(encoder, Estimator) or encoder.name != "sklearn.preprocessing._encoders.OrdinalEncoder":
        raise e.broken("its categories are not encoded by an OrdinalEncoder")
    if (e.part("_bin_mapper").array("is_categorical_", features) != (plain < chosen.sum())).any():
        raise e.broken("its bins and its columns disagree about what is categorical")
    tables = encoder.items("categories_")
    columns = plain[chosen]
    if len(tables) != len(columns):
        raise e.broken(f"categories of {len(tables)} columns, and {len(columns)} are categorical")
    return np.concatenate([columns, plain[~chosen]]), {
        int(column): _categories(e, table) for column, table in zip(columns, tables, strict=True)
    }


def _categories(e: Estimator, table: Any) -> NDArray[np.float64]:
    """The value of every code; a NaN at the end is no category."""
    if not isinstance(table, np.ndarray) or table.ndim != 1 or table.dtype.kind not in "biuf":
        raise e.refused("categories that are not numbers are not supported; encode them before the model")
    values = table.astype(np.float64)
    values = values[~np.isnan(values)]
    if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise e.refused("categories that are not whole numbers are not supported; encode them before the model")
    return values


def _with_sets(
    e: Estimator,
    forest: Forest,
    predictors: list[Estimator],
    tables: list[NDArray[Any]],
    categories: dict[int, NDArray[np.float64]],
) -> Forest:
    """The forest with sets in its categorical nodes.

    Such a node knows three ways: a category in its set goes left, another known one right, and what is unknown goes
    where a NaN goes. So the set asked for is the one on the side that the unknown does not take::

        missing goes right:   x in left set?    true ► left    false ► right
        missing goes left:    x in right set?   true ► right   false ► left
    """
    member = np.concatenate([(t["is_categorical"] != 0) & (t["is_leaf"] == 0) for t in tables])
    if not member.any():
        return forest
    start = np.concatenate([[0], np.cumsum([len(table) for table in tables])])
    sizes = np.zeros(forest.nodes, np.int64)
    members: list[NDArray[np.float64]] = []
    for node in np.flatnonzero(member):
        tree = int(np.searchsorted(start, node, side="right")) - 1
        values = categories.get(int(forest.feature[node]))
        if values is None:
            raise e.broken("a node asks for categories of a column that has none")
        left = _left(predictors[tree], tables[tree][node - start[tree]], len(values))
        chosen = values[~left if forest.missing[node] else left]
        sizes[node] = len(chosen)
        members.append(chosen)
    swap = member & forest.missing
    return replace(
        forest,
        compare=np.where(member, Compare.MEMBER, forest.compare).astype(np.uint8),
        threshold=np.where(member, 0, forest.threshold),
        true_child=np.where(swap, forest.false_child, forest.true_child),
        false_child=np.where(swap, forest.true_child, forest.false_child),
        missing=forest.missing & ~member,
        sets=Sets.of(sizes, np.concatenate(members)),
    )


def _left(predictor: Estimator, node: Any, count: int) -> NDArray[np.bool_]:
    """[count] whether each code goes left: bit `code % 32` of word `code // 32`."""
    words = predictor.get("raw_left_cat_bitsets")
    fits = (
        isinstance(words, np.ndarray) and words.ndim == 2 and words.dtype.kind == "u" and words.shape[1] * 32 >= count
    )
    if not fits or "bitset_idx" not in node.dtype.names or int(node["bitset_idx"]) >= len(words):
        raise predictor.broken("a node asks for a set of categories that is not there")
    row = words[int(node["bitset_idx"])].astype(np.uint32)
    code = np.arange(count)
    return np.asarray((row[code // 32] >> (code % 32).astype(np.uint32)) & 1 == 1)
