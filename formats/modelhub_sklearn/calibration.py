"""Calibrated classifiers: sigmoid, isotonic and temperature (sklearn/calibration.py, sklearn/isotonic.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.forest import Link
from modelhub_sklearn.boosting import both_classes, linked
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.linear import normalised, sigmoid
from modelhub_sklearn.table import Rows, apply, converts, method_of, side_by_side

__all__ = ["interpolated"]

MODULE = "sklearn.calibration."


@converts("predict_proba", f"{MODULE}CalibratedClassifierCV", decides=True)
def calibrated(e: Estimator, x: Rows) -> Rows:
    """The mean over the folds."""
    members = e.parts("calibrated_classifiers_")
    total = None
    for index, member in enumerate(members):
        if member.name != f"{MODULE}_CalibratedClassifier":
            raise e.broken("a member that is not calibrated")
        with x.b.scope(f"fold_{index}"):
            p = _fold(member, x, len(e.classes))
        total = p if total is None else total.op("Add", p)
    assert total is not None
    return total.op("Div", len(members))


def _fold(e: Estimator, x: Rows, count: int) -> Rows:
    """Each class against the rest, then divided by the sum."""
    inner = e.part("estimator")
    method = method_of(inner, ("decision_function", "predict_proba"))
    y = apply(inner, x, method)
    if len(inner.classes) != count:
        raise e.refused("a fold has not met all classes")
    if method == "predict_proba" and count == 2:
        y = y.column(1)
    calibrators = e.parts("calibrators")
    if calibrators[0].name == f"{MODULE}_TemperatureScaling":
        return _temperature(calibrators[0], y, method)
    if len(calibrators) != y.width:
        raise e.broken(f"{len(calibrators)} calibrators for {y.width} decisions")
    parts = [_calibrated(calibrator, y.column(index)) for index, calibrator in enumerate(calibrators)]
    p = both_classes(parts[0]) if count == 2 else normalised(side_by_side(parts))
    # sums that come out a little above 1 are 1
    b = p.b
    above = b.op("Greater", p.value, b.constant(np.ones(1), "one"))
    near = b.op("LessOrEqual", p.value, b.constant(np.full(1, 1 + 1e-5), "nearly_one"))
    return p.where(b.op("And", above, near), np.ones(1))


def _calibrated(e: Estimator, y: Rows) -> Rows:
    """One calibrator on decisions [N, 1]."""
    if e.name == f"{MODULE}_SigmoidCalibration":
        return sigmoid(y.op("Mul", -e.number("a_")).op("Sub", e.number("b_")))
    if e.name != "sklearn.isotonic.IsotonicRegression":
        raise e.refused("not a calibrator that is known")
    if e.text("out_of_bounds") != "clip":
        raise e.refused("an isotonic regression that does not clip")
    knots = e.own("X_thresholds_", None)
    values = e.own("y_thresholds_", len(knots))
    if values.dtype != knots.dtype:
        raise e.refused("an isotonic regression between float32 and float64 is not supported")
    if knots.dtype == np.float32:  # trained on float32: scikit-learn rounds to it, and computes in it
        y = y.op("Cast", to=ir.DataType.FLOAT.value)
    low, high = (y.b.constant(np.array(e.number(key), knots.dtype), key) for key in ("X_min_", "X_max_"))
    y = Rows(y.b, y.b.op("Min", y.b.op("Max", y.value, low), high), 1)
    return interpolated(y, knots, values).op("Cast", to=ir.DataType.DOUBLE.value)


def _temperature(e: Estimator, y: Rows, method: str) -> Rows:
    """softmax(beta * logits), the logits being log(p + 1e-12) where the classifier gives probabilities."""
    if method == "predict_proba":
        logits = (both_classes(y) if y.width == 1 else y).op("Add", 1e-12).op("Log")
    elif y.width == 1:
        logits = side_by_side([y.op("Neg"), y])
    else:
        logits = y
    return linked(logits.op("Mul", e.number("beta_")), Link("softmax"))


def interpolated(y: Rows, knots: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]]) -> Rows:
    """Values [N, 1] on the line between the two knots around `y` [N, 1], which is not outside of them.

    `y`, knots and values are float64, or all of them float32. The piece is the one that ends at the first knot not
    below y (scipy.interpolate.interp1d, kind='linear').
    """
    b = y.b
    if not len(knots) or (np.diff(knots) <= 0).any():
        raise Estimator("interpolation", {}, "scikit-learn").broken("knots that do not rise")
    if len(knots) == 1:
        knots, values = np.append(knots, np.nextafter(knots, knots.dtype.type(np.inf))), np.append(values, values)
    if len(knots) > 2:
        below = y.number(b.op("Less", b.constant(knots[1:-1], "knots"), y.value), len(knots) - 2).total()
    else:
        below = y.number(b.op("IsInf", y.value))
    piece = b.op("Cast", below.value, to=ir.DataType.INT64.value)
    slope = np.diff(values) / np.diff(knots)
    first, start, rise = (
        Rows(b, b.op("Gather", b.constant(array, name), piece), 1)
        for array, name in ((knots[:-1], "first"), (values[:-1], "start"), (slope, "slope"))
    )
    return y.op("Sub", first).op("Mul", rise).op("Add", start)
