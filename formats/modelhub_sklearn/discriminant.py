"""Discriminant analysis: planes, paraboloids and centroids.

Source: sklearn/discriminant_analysis.py, neighbors/_nearest_centroid.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import Link
from modelhub_sklearn.boosting import both_classes, linked
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.linear import decision
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__: list[str] = []

MODULE = "sklearn.discriminant_analysis."
LINEAR = f"{MODULE}LinearDiscriminantAnalysis"
QUADRATIC = f"{MODULE}QuadraticDiscriminantAnalysis"


@converts("predict_proba", LINEAR)
def linear(e: Estimator, x: Rows) -> Rows:
    """Sigmoid of the decision for two classes, softmax for more."""
    y = decision(e, x)
    return both_classes(linked(y, Link("sigmoid"))) if y.width == 1 else linked(y, Link("softmax"))


@converts("transform", LINEAR, when=lambda e: e.choice("solver") in ("svd", "eigen"))
def projected(e: Estimator, x: Rows) -> Rows:
    """On to the directions that tell the classes apart best; the solver svd centres the rows first."""
    scalings = e.array("scalings_", x.width, None)[:, : e.whole("_max_components")]
    if e.text("solver") == "svd":
        x = x.op("Sub", e.array("xbar_", x.width))
    return x.times(scalings)


@converts("predict_proba", QUADRATIC)
def quadratic(e: Estimator, x: Rows) -> Rows:
    """Softmax over classes of: log prior - (|(x - mean) R S^-1/2|^2 + sum log S) / 2."""
    count = len(e.classes)
    mean, prior = e.array("means_", count, x.width), e.own("priors_", count)
    rotations, scalings = e.items("rotations_"), e.items("scalings_")
    if len(rotations) != count or len(scalings) != count or not (prior > 0).all():
        raise e.broken("not one rotation, one scaling and one prior for every class")
    parts = []
    for index in range(count):
        rotation, scaling = _axes(e, x.width, rotations[index], scalings[index])
        turned = x.op("Sub", mean[index]).times(rotation * scaling ** (-0.5))
        constant = float(np.log(prior[index])) - 0.5 * float(np.log(scaling).sum())
        parts.append(turned.op("Mul", turned).total().op("Mul", -0.5).op("Add", constant))
    return linked(side_by_side(parts), Link("softmax"))


def _axes(
    e: Estimator, width: int, rotation: object, scaling: object
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """The axes [width, axes] of one class, and the variance [axes] along each."""
    holder = Estimator(e.name, {"rotations_": rotation, "scalings_": scaling}, e.where)
    axes = holder.own("rotations_", width, None)
    variance = holder.own("scalings_", axes.shape[1])
    if not (variance > 0).all():
        raise e.broken("a variance that is not above 0")
    return axes, variance


@converts("predict_proba", "sklearn.neighbors._nearest_centroid.NearestCentroid", when=lambda e: e.version >= (1, 6))
def nearest_centroid(e: Estimator, x: Rows) -> Rows:
    """Softmax of 2 log prior - distance^2, features divided by their spread within the classes."""
    count = len(e.classes)
    metric = e.text("metric")
    if metric not in ("euclidean", "manhattan"):
        raise e.refused("only the metrics euclidean and manhattan are supported")
    spread = e.array("within_class_std_dev_", x.width)
    spread = np.where(spread == 0, 1, spread)
    centroid, prior = e.array("centroids_", count, x.width) / spread, e.array("class_prior_", count)
    rows = x.op("Div", spread)
    parts = []
    for index in range(count):
        gap = rows.op("Sub", centroid[index])
        distance = gap.op("Mul", gap).total() if metric == "euclidean" else gap.op("Abs").total()
        parts.append((distance if metric == "euclidean" else distance.op("Mul", distance)).op("Neg"))
    with np.errstate(divide="ignore"):
        return linked(side_by_side(parts).op("Add", 2 * np.log(prior)), Link("softmax"))
