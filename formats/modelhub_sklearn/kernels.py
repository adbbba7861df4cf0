"""Support vector machines (sklearn/svm/src/libsvm/svm.cpp) and principal components of a kernel."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from modelhub_sklearn.coupling import coupled
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.scaling import NOTHING, divided
from modelhub_sklearn.table import Rows, converts

__all__ = ["cosines", "squared_distances"]

SVM = "sklearn.svm._classes."


def squared_distances(x: Rows, points: NDArray[np.float64]) -> Rows:
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
        return squared_distances(x, points).op("Mul", -e.number("_gamma")).op("Exp")
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


@converts("decision_function", f"{SVM}OneClassSVM")
def one_class(e: Estimator, x: Rows) -> Rows:
    """As a regressor: above 0 for what belongs to the class."""
    return support_vector_regressor(e, x)


def _sound(e: Estimator, kernel: Rows) -> Rows:
    sizes = e.array("_n_support", len(e.classes))
    if (sizes < 0).any() or sizes.sum() != kernel.width:
        raise e.broken("the support vectors do not add up")
    return kernel


@converts("decision_function", f"{SVM}SVC", f"{SVM}NuSVC", decides=True)
def support_vector_classifier(e: Estimator, x: Rows) -> Rows:
    """The decision of two classes; for more, votes of every pair and a share of the decisions."""
    kernel = _sound(e, _kernel(e, x))
    count = len(e.classes)
    if count == 2:
        return kernel.times(e.array("dual_coef_", 1, kernel.width).T, e.array("intercept_", 1))
    pairs = _pairs(e, count, kernel)
    return _votes(pairs, count) if e.choice("decision_function_shape") == "ovr" else pairs


@converts("votes", f"{SVM}SVC", f"{SVM}NuSVC", decides=True)
def label(e: Estimator, x: Rows) -> Rows:
    """Votes of the pairs, 0 being one for the second (svm.cpp, svm_predict_values); with `break_ties` the decisions."""
    kernel = _sound(e, _kernel(e, x))
    count = len(e.classes)
    pairs = _pairs(e, count, kernel)
    if e.flag("break_ties") and e.choice("decision_function_shape") == "ovr" and count > 2:
        return _votes(pairs, count)
    table = np.zeros((len(list(combinations(range(count), 2))), count))
    for index, (i, j) in enumerate(combinations(range(count), 2)):
        table[index, i], table[index, j] = 1, -1
    first = pairs.number(pairs.b.op("Greater", pairs.value, pairs.b.constant(np.zeros(1), "zero")))
    return first.times(table, (table < 0).sum(axis=0).astype(np.float64))


@converts(
    "predict_proba",
    f"{SVM}SVC",
    f"{SVM}NuSVC",
    decides=True,
    when=lambda e: isinstance(e.attributes.get("_probA"), np.ndarray) and e.array("_probA").size > 0,
)
def probabilities(e: Estimator, x: Rows) -> Rows:
    """Platt's sigmoid of the decision of every pair, coupled (svm.cpp, svm_predict_probability)."""
    count = len(e.classes)
    pairs = _pairs(e, count, _sound(e, _kernel(e, x)))
    return coupled(pairs, e.array("_probA", pairs.width), e.array("_probB", pairs.width), count)


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


@converts("transform", "sklearn.decomposition._kernel_pca.KernelPCA")
def kernel_components(e: Estimator, x: Rows) -> Rows:
    """The centred kernel of the row and the training rows, on the eigenvectors (decomposition/_kernel_pca.py).

    The means of the training kernel go into the constants: centring is linear.
    """
    points = e.array("X_fit_", None, x.width)
    values = e.own("eigenvalues_", None)
    vectors = e.own("eigenvectors_", len(points), len(values))
    centre = e.part("_centerer")
    rows, overall = centre.array("K_fit_rows_", len(points)), centre.number("K_fit_all_")
    alone = values != 0
    if (values < 0).any():
        raise e.broken("an eigenvalue below 0")
    scaled = np.where(alone, vectors / np.sqrt(np.where(alone, values, 1)), 0)
    kernel = _pairwise_kernel(e, x, points)
    mean = kernel.total().op("Div", float(len(points)))
    centred = kernel.op("Sub", rows).op("Sub", mean).op("Add", overall)
    return centred.times(scaled)


def cosines(x: Rows, points: NDArray[np.float64]) -> Rows:
    """[N, points] the cosines of the angles between rows and points."""
    length = np.linalg.norm(points, axis=1, keepdims=True)
    unit = points / np.where(length < NOTHING, 1, length)
    return divided(x, x.op("Mul", x).total().op("Sqrt")).times(unit.T)


def _pairwise_kernel(e: Estimator, x: Rows, points: NDArray[np.float64]) -> Rows:
    """[N, points] (sklearn/metrics/pairwise.py)."""
    name = e.choice("kernel")
    if name == "rbf":
        return squared_distances(x, points).op("Mul", -e.number("gamma_")).op("Exp")
    if name == "cosine":
        return cosines(x, points)
    if name not in ("linear", "poly", "sigmoid"):
        raise e.refused("only the kernels linear, poly, rbf, sigmoid and cosine are supported")
    product = x.times(points.T)
    if name == "linear":
        return product
    product = product.op("Mul", e.number("gamma_")).op("Add", e.number("coef0"))
    return product.op("Tanh") if name == "sigmoid" else product.op("Pow", e.number("degree"))
