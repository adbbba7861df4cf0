"""Nearest neighbours: classifiers, regressors, and what they put in the place of missing values (sklearn/neighbors)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.kernels import cosines, squared_distances
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__: list[str] = []

NEIGHBOURS = "sklearn.neighbors."


def _gaps(x: Rows, points: NDArray[np.float64]) -> list[Rows]:
    """|x - point| of every column, [N, points] each."""
    return [x.column(c).op("Sub", points[:, c], width=len(points)).op("Abs") for c in range(x.width)]


def _sum(parts: list[Rows]) -> Rows:
    total = parts[0]
    for part in parts[1:]:
        total = total.op("Add", part)
    return total


def _distances(e: Estimator, x: Rows, points: NDArray[np.float64]) -> Rows:
    """[N, points] in the metric of the estimator (sklearn/metrics/_dist_metrics.pyx.tp, metrics/pairwise.py)."""
    metric = e.choice("effective_metric_") or "euclidean"
    options = e.attributes.get("effective_metric_params_")
    options = options if isinstance(options, dict) else {}
    if options.get("w") is not None:
        raise e.refused("weights of the features in the metric are not supported; scale the features instead")
    match metric:
        case "euclidean" | "l2":
            return squared_distances(x, points).op("Sqrt")
        case "sqeuclidean":
            return squared_distances(x, points)
        case "manhattan" | "cityblock" | "l1":
            return _sum(_gaps(x, points))
        case "chebyshev" | "infinity":
            gaps = _gaps(x, points)
            largest = gaps[0]
            for gap in gaps[1:]:
                largest = largest.op("Max", gap)
            return largest
        case "minkowski" | "p":
            power = Estimator(e.name, {"p": options.get("p", e.attributes.get("p"))}, e.where).number("p")
            return _sum([gap.op("Pow", power) for gap in _gaps(x, points)]).op("Pow", 1 / power)
        case "canberra":
            return _sum(_canberra(x, points))
        case "cosine":
            return _cosine(x, points)
        case _:
            raise e.refused(
                f"the metric {metric[:30]!r} is not supported; euclidean, manhattan, chebyshev, minkowski, canberra "
                "and cosine are"
            )


def _canberra(x: Rows, points: NDArray[np.float64]) -> list[Rows]:
    """|x - p| / (|x| + |p|) of every column, 0 where both are 0."""
    parts = []
    for column, gap in enumerate(_gaps(x, points)):
        size = x.column(column).op("Abs").op("Add", np.abs(points[:, column]), width=len(points))
        none = x.b.op("Equal", size.value, x.b.constant(np.zeros(1), "zero"))
        parts.append(gap.op("Div", size.where(none, np.ones(1))))
    return parts


def _cosine(x: Rows, points: NDArray[np.float64]) -> Rows:
    """1 - the cosine of the angle, from 0 to 2."""
    return cosines(x, points).op("Neg").op("Add", 1.0).op("Max", 0.0).op("Min", 2.0)


def _weights(e: Estimator, found: Rows) -> Rows:
    """What each neighbour counts, by its distance: all the same, or 1/distance.

    Where some distances are 0, these count 1 and the others nothing.
    """
    b, kind = found.b, e.choice("weights")
    if kind in ("uniform", ""):
        return found.op("Mul", 0.0).op("Add", 1.0)
    if kind != "distance":
        raise e.refused("only the weights 'uniform' and 'distance' are supported")
    zero = b.op("Equal", found.value, b.constant(np.zeros(1), "zero"))
    met = found.number(zero)
    some = b.op("Greater", met.total().value, b.constant(np.zeros(1), "zero"))
    inverse = found.where(zero, np.ones(1)).op("Reciprocal")
    return inverse.where(some, met)


def _neighbours(e: Estimator, x: Rows) -> tuple[Rows, ir.Value]:
    """Weights [N, k] of the nearest points, and which they are."""
    points = e.array("_fit_X", None, x.width)
    count, b = e.whole("n_neighbors"), x.b
    if not 0 < count <= len(points):
        raise e.broken(f"{count} neighbours of {len(points)} points")
    distance = _distances(e, x, points)
    near, place = b.ops("TopK", distance.value, b.ints(count), outputs=2, axis=1, largest=0, sorted=1)
    return _weights(e, Rows(b, near, count)), place


@converts("predict_proba", f"{NEIGHBOURS}_classification.KNeighborsClassifier", decides=True)
def neighbours_classifier(e: Estimator, x: Rows) -> Rows:
    """The share of weight each class has among the nearest; target after target, where there are several."""
    sizes = [len(labels) for labels in e.targets]
    points = len(e.array("_fit_X", None, x.width))
    codes = e.array("_y", None) if len(sizes) == 1 else e.array("_y", points, len(sizes))
    table = codes.astype(np.int64).reshape(len(codes), -1)
    if len(table) != points or table.shape[1] != len(sizes) or (table < 0).any() or (table >= sizes).any():
        raise e.broken("the labels do not fit the points")
    shares = np.concatenate([np.eye(size)[column] for size, column in zip(sizes, table.T, strict=True)], axis=1)
    return _share(_neighbours(e, x), shares)


@converts("predict", f"{NEIGHBOURS}_regression.KNeighborsRegressor", decides=True)
def neighbours_regressor(e: Estimator, x: Rows) -> Rows:
    """The weighted mean of the nearest."""
    target = e.array("_y")
    target = target[:, np.newaxis] if target.ndim == 1 else target
    if target.ndim != 2 or len(target) != len(e.array("_fit_X", None, x.width)):
        raise e.broken("the targets do not fit the points")
    stored = e.get("_y")
    if isinstance(stored, np.ndarray) and stored.dtype == np.float32 and e.choice("weights") in ("uniform", ""):
        raise e.refused(
            "the targets it was trained with are float32, and scikit-learn takes their mean in float32 by an order of "
            "its own; train with float64 targets, or weights='distance'"
        )
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


@converts("transform", "sklearn.impute._knn.KNNImputer", decides=True)
def imputer(e: Estimator, x: Rows) -> Rows:
    """What is missing replaced by the mean of the nearest rows that have it; the column's mean where none is near.

    The distance leaves out what either row misses, and scales up what is left (metrics/pairwise.py,
    nan_euclidean_distances). Source: sklearn/impute/_knn.py.
    """
    if e.choice("metric") != "nan_euclidean":
        raise e.refused("only the metric nan_euclidean is supported")
    if not np.isnan(e.array("missing_values", finite=False)).all():
        raise e.refused("only NaN can stand for a missing value; replace the marker by NaN before")
    points = e.array("_fit_X", None, x.width, finite=False)
    absent = np.isnan(points)
    valid = e.array("_valid_mask", x.width) != 0
    if (absent.all(axis=0) == valid).any():
        raise e.broken("its columns and its rows disagree about what is missing")
    b = x.b
    missing = b.op("IsNaN", x.value)
    distance = _partial_distances(x.where(missing, np.zeros(1)), x.number(missing), points)
    columns = []
    for column in np.flatnonzero(valid).tolist():
        donors = np.flatnonzero(~absent[:, column])
        found = _imputed(e, distance.take(donors), points[donors, column])
        gap = b.op("IsNaN", x.column(column).value)
        columns.append(x.column(column).where(gap, found))
    if e.flag("keep_empty_features"):
        empty = x.column(0).number(b.op("IsNaN", x.column(0).value)).op("Mul", 0.0)
        filled = iter(columns)
        columns = [next(filled) if there else empty for there in valid]
    if not columns:
        raise e.refused("no column is left")
    if e.flag("add_indicator"):
        indicator = e.part("indicator_")
        marked = indicator.columns(indicator.get("features_"), "features_", x.width)
        if len(marked):
            columns.append(x.number(missing).take(marked))
    return side_by_side(columns)


def _partial_distances(x: Rows, missing: Rows, points: NDArray[np.float64]) -> Rows:
    """[N, points] the root of: squares summed over what both have, times features over how many that are."""
    there = ~np.isnan(points)
    full = np.where(there, points, 0)
    present = missing.op("Neg").op("Add", 1.0)
    total = _sum(
        [
            x.column(c)
            .op("Sub", full[:, c], width=len(points))
            .op("Pow", 2.0)
            .op("Mul", there[:, c])
            .op("Mul", present.column(c))
            for c in range(x.width)
        ]
    )
    count = present.times(there.T)
    none = x.b.op("Equal", count.value, x.b.constant(np.zeros(1), "zero"))
    return total.op("Div", count.op("Max", 1.0)).op("Mul", float(x.width)).op("Sqrt").where(none, np.full(1, np.inf))


def _imputed(e: Estimator, distance: Rows, values: NDArray[np.float64]) -> Rows:
    """[N, 1] the weighted mean of the values of the nearest donors."""
    b, count = distance.b, min(e.whole("n_neighbors"), len(values))
    if not count:
        raise e.broken("no neighbours")
    near, place = b.ops("TopK", distance.value, b.ints(count), outputs=2, axis=1, largest=0, sorted=1)
    found = Rows(b, near, count)
    far = b.op("IsInf", near)
    weights = _weights(e, found.where(far, np.ones(1))).where(far, np.zeros(1))
    donors = Rows(b, b.op("Gather", b.constant(np.ascontiguousarray(values), "donors"), place), count)
    total = weights.total()
    nobody = b.op("Equal", total.value, b.constant(np.zeros(1), "zero"))
    mean = weights.op("Mul", donors).total().op("Div", total.where(nobody, np.ones(1)))
    return mean.where(nobody, np.full(1, values.mean()))
