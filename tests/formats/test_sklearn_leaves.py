"""Trees of scikit-learn, leaf by leaf: what every estimator's own `apply` says, at thresholds and beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from forest_rows import interface, naming_leaves, reached, run, threshold_rows, written

from modelhub.graph import forest_eval
from modelhub.graph.forest import Forest
from modelhub.graph.forest_onnx import to_graph
from modelhub_sklearn.adaboost import voting_trees
from modelhub_sklearn.boosting import boosted_trees
from modelhub_sklearn.histograms import histogram_trees
from modelhub_sklearn.live import snapshot
from modelhub_sklearn.trees import isolation_trees, mean_of_trees

sklearn_models = pytest.importorskip("sklearn_models", exc_type=ImportError)
finite = sklearn_models.finite

ROWS = 10_000
FORESTS, HISTOGRAMS = sklearn_models.forests(), sklearn_models.histograms()
NO_HOLES = ("ada", "boosting")
"""scikit-learn refuses NaN here."""


def forest(estimator: Any) -> Forest:
    data = snapshot(estimator, "the model")
    name, features = data.short, estimator.n_features_in_
    if name.startswith("GradientBoosting"):
        return boosted_trees(data, features, estimator.estimators_.shape[1]).checked(name)
    if name.startswith("AdaBoost"):
        return voting_trees(data, features, estimator.estimator_weights_).checked(name)
    if name == "IsolationForest":
        return isolation_trees(data, features).checked(name)
    return mean_of_trees(data, features).checked(name)


def own_leaves(estimator: Any, x: np.ndarray) -> np.ndarray:
    """The node [N, trees] every row ends in, by scikit-learn."""
    columns = getattr(estimator, "estimators_features_", None)
    if columns is not None:
        members = zip(estimator.estimators_, columns, strict=True)
        return np.stack([m.tree_.apply(x[:, c].astype(np.float32)) for m, c in members], axis=1)
    if not hasattr(estimator, "apply"):
        return np.stack([member.apply(x) for member in estimator.estimators_], axis=1)
    return np.asarray(estimator.apply(x)).reshape(len(x), -1).astype(np.int64)


@pytest.fixture(params=list(FORESTS))
def model(request: pytest.FixtureRequest) -> tuple[str, Any, Forest]:
    estimator, data, target = FORESTS[request.param]
    estimator.fit(data, target)
    return request.param, estimator, forest(estimator)


def test_every_row_reaches_its_leaf(model) -> None:
    name, estimator, trees = model
    x = finite(threshold_rows(trees, ROWS, 1, nan=0 if name.startswith(NO_HOLES) else 0.05))
    expected = own_leaves(estimator, x)
    assert np.array_equal(forest_eval.leaves(trees, x) - trees.roots, expected)
    for form, leaves in reached(trees, x):
        assert not (leaves != expected).any(), form


def test_rows_in_float64_reach_their_leaf(model) -> None:
    name, estimator, trees = model
    x = threshold_rows(trees, ROWS, 2, nan=0 if name.startswith(NO_HOLES) else 0.05, dtype="float64")
    # beside the boundary at which a double is rounded to the one float32 or the other
    near = threshold_rows(trees, ROWS, 3, nan=0).astype(np.float64)
    half = (near + np.nextafter(near.astype(np.float32), np.float32(0)).astype(np.float64)) / 2
    x = finite(np.concatenate([x, half, np.nextafter(half, np.inf), np.nextafter(half, -np.inf)]))
    named = naming_leaves(trees)
    leaves = run(written(to_graph(named, interface(named)), "float64"), x)
    assert np.array_equal(leaves.astype(np.int64), own_leaves(estimator, x))


def histogram_leaves(estimator: Any, x: np.ndarray) -> np.ndarray:
    """The value [N, trees] every row gets, by scikit-learn's own predictors."""
    rows = estimator._preprocess_X(x, reset=False)
    known, places = estimator._bin_mapper.make_known_categories_bitsets()
    members = [member for iteration in estimator._predictors for member in iteration]
    return np.stack([member.predict(rows, known, places, 1) for member in members], axis=1)


@pytest.mark.parametrize("name", list(HISTOGRAMS))
def test_every_row_gets_its_value_in_every_histogram_tree(name: str) -> None:
    estimator, data, target = HISTOGRAMS[name]
    estimator.fit(data, target)
    classes = len(getattr(estimator, "classes_", [0]))
    trees = histogram_trees(snapshot(estimator, name), data.shape[1], classes if classes > 2 else 1).checked(name)
    apart = replace(trees, tree_output=np.arange(trees.trees), base=np.zeros(trees.trees))
    for dtype in ("float32", "float64"):
        x = threshold_rows(trees, ROWS, 4, dtype=dtype).astype(np.float64)
        expected = histogram_leaves(estimator, x)
        assert np.array_equal(forest_eval.margins(apart, x), expected)
    if trees.sets is None:
        x = threshold_rows(trees, ROWS, 5)
        ends = forest_eval.leaves(trees, x) - trees.roots
        for form, leaves in reached(trees, x):
            assert not (leaves != ends).any(), form
