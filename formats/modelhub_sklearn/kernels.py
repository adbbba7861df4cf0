"""Support vector machines (sklearn/svm/src/libsvm/svm.cpp) and nearest neighbours (sklearn/neighbors)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__: list[str] = []

SVM = "sklearn.svm._classes."
NEIGHBOURS = "sklearn.neighbors."


def _squared_distances(x: Rows, points: NDArray[np.float64]) -> Rows:
    """[N, points]: summed column by column, as the product formula would cancel for near points."""
    total = None
    for column in range(x.width):
        part = x.column(column).op("Sub", points[:, column], width=len(points))
        part = part.op("Mul", part)
        total = part if total is None else total.op("Add", part)
    assert total is not None
    return total


def _kernel(e: Estimator, x: Rows) -> Rows:
    """[N, support vectors] (svm.cpp, Kernel::k_function)."""
    points = e.array("support_vectors_", None, x.width)
    name = e.choice("kernel")
    if name == "rbf":
        return _squared_distances(x, points).op("Mul", -e.number("_gamma")).op("Exp")
    if name not in ("linear", "poly", "sigmoid"):
        raise e.refused("only the kernels linear, poly, rbf and sigmoid are supported")
    product = x.times(points.T)
    if name == "linear":
        return product
    product = product.op("Mul", e.number("_gamma")).op("Add", e.number("coef0"))
    if name == "sigmoid":
        return product.op("Tanh")
    power = Rows(x.b, x.b.constant(np.ones(1), "one"), product.width)
    for _ in range(e.whole("degree")):  # libsvm multiplies too: a negative number to a power is no NaN
        power = product.op("Mul", power)
    return power


@converts("predict", f"{SVM}SVR", f"{SVM}NuSVR")
def support_vector_regressor(e: Estimator, x: Rows) -> Rows:
    """Kernel values times dual coefficients plus intercept."""
    kernel = _kernel(e, x)
    return kernel.times(e.array("dual_coef_", 1, kernel.width).T, e.array("intercept_", 1))


def _has_probabilities(e: Estimator) -> bool:
    return e.attributes.get("probability") is True


@converts("decision_function", f"{SVM}SVC", f"{SVM}NuSVC", decides=True, when=lambda e: not _has_probabilities(e))
def support_vector_classifier(e: Estimator, x: Rows) -> Rows:
    """The decision of two classes; for more, votes of every pair and a share of the decisions."""
    kernel = _kernel(e, x)
    count = len(e.classes)
    sizes = e.array("_n_support", count)
    if (sizes < 0).any() or sizes.sum() != kernel.width:
        raise e.broken("the support vectors do not add up")
    if count == 2:
        return kernel.times(e.array("dual_coef_", 1, kernel.width).T, e.array("intercept_", 1))
    pairs = _pairs(e, count, kernel)
    return _votes(pairs, count) if e.choice("decision_function_shape") == "ovr" else pairs


def _pairs(e: Estimator, count: int, kernel: Rows) -> Rows:
    """[N, count (count-1) / 2] decisions for (0, 1), (0, 2), ..., (1, 2), ...; positive: the first of the pair."""
    dual = e.array("_dual_coef_", count - 1, kernel.width)
    owner = np.repeat(np.arange(count), e.array("_n_support", count).astype(np.int64))
    columns = [
        np.where(owner == i, dual[j - 1], np.where(owner == j, dual[i], 0)) for i, j in combinations(range(count), 2)
    ]
    return kernel.times(np.stack(columns, axis=1), e.array("_intercept_", len(columns)))


def _votes(pairs: Rows, count: int) -> Rows:
    """sklearn/utils/multiclass.py, _ovr_decision_function: votes + s / (3 (|s| + 1)), s summed over the pairs."""
    places = list(combinations(range(count), 2))
    sums = np.zeros((len(places), count))
    for index, (i, j) in enumerate(places):
        sums[index, i], sums[index, j] = 1, -1
    zero = pairs.b.constant(np.zeros(1), "zero")
    second = pairs.number(pairs.b.op("Less", pairs.value, zero))
    # a vote for the second of the pair, else for the first
    votes = second.times(-sums, (sums > 0).sum(axis=0).astype(np.float64))
    confidence = pairs.times(sums)
    return votes.op("Add", confidence.op("Div", confidence.op("Abs").op("Add", 1.0).op("Mul", 3.0)))


def _neighbours(e: Estimator, x: Rows) -> tuple[Rows, ir.Value]:
    """Weights [N, k] of the nearest points, and which they are."""
    points = e.array("_fit_X", None, x.width)
    metric, count, b = e.choice("effective_metric_"), e.whole("n_neighbors"), x.b
    if not 0 < count <= len(points):
        raise e.broken(f"{count} neighbours of {len(points)} points")
    if metric == "euclidean":
        distance = _squared_distances(x, points).op("Sqrt")
    elif metric == "manhattan":
        parts = [x.column(c).op("Sub", points[:, c], width=len(points)).op("Abs") for c in range(x.width)]
        distance = parts[0]
        for part in parts[1:]:
            distance = distance.op("Add", part)
    else:
        raise e.refused("only the metrics euclidean and manhattan are supported")
    near, place = b.ops("TopK", distance.value, b.ints(count), outputs=2, axis=1, largest=0, sorted=1)
    found = Rows(b, near, count)
    weights = e.choice("weights")
    if weights in ("uniform", ""):
        return found.op("Mul", 0.0).op("Add", 1.0), place
    if weights != "distance":
        raise e.refused("only the weights 'uniform' and 'distance' are supported")
    # 1/distance; where some are 0, these count 1 and the others nothing
    zero = b.op("Equal", near, b.constant(np.zeros(1), "zero"))
    met = found.number(zero)
    some = b.op("Greater", met.total().value, b.constant(np.zeros(1), "zero"))
    inverse = found.where(zero, np.ones(1)).op("Reciprocal")
    return inverse.where(some, met), place


@converts("predict_proba", f"{NEIGHBOURS}_classification.KNeighborsClassifier", decides=True)
def neighbours_classifier(e: Estimator, x: Rows) -> Rows:
    """The share of weight each class has among the nearest."""
    count = len(e.classes)
    label = e.array("_y", None).astype(np.int64)
    if len(label) != len(e.array("_fit_X", None, x.width)) or not 0 <= label.min() <= label.max() < count:
        raise e.broken("the labels do not fit the points")
    return _share(_neighbours(e, x), np.eye(count)[label])


@converts("predict", f"{NEIGHBOURS}_regression.KNeighborsRegressor", decides=True)
def neighbours_regressor(e: Estimator, x: Rows) -> Rows:
    """The weighted mean of the nearest."""
    target = e.array("_y")
    target = target[:, np.newaxis] if target.ndim == 1 else target
    if target.ndim != 2 or len(target) != len(e.array("_fit_X", None, x.width)):
        raise e.broken("the targets do not fit the points")
    return _share(_neighbours(e, x), target)


def _share(found: tuple[Rows, ir.Value], table: NDArray[np.float64]) -> Rows:
    """Weighted means [N, columns of table]."""
    weights, place = found
    b = weights.b
    total = weights.total()
    columns = []
    for column in table.T:
        value = b.op("Gather", b.constant(np.ascontiguousarray(column), "values"), place)
        columns.append(weights.op("Mul", Rows(b, value, weights.width)).total().op("Div", total))
    return side_by_side(columns)
