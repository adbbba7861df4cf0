"""Calibrated classifiers: sigmoid, isotonic and temperature (sklearn/calibration.py, sklearn/isotonic.py)."""

from __future__ import annotations

import numpy as np
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
    y = y.op("Max", e.number("X_min_")).op("Min", e.number("X_max_"))
    knots = e.array("X_thresholds_", None)
    return interpolated(y, knots, e.array("y_thresholds_", len(knots)))


def _temperature(e: Estimator, y: Rows, method: str) -> Rows:
    """softmax(beta * logits), the logits being log(p + 1e-12) where the classifier gives probabilities."""
    if method == "predict_proba":
        logits = (both_classes(y) if y.width == 1 else y).op("Add", 1e-12).op("Log")
    elif y.width == 1:
        logits = side_by_side([y.op("Neg"), y])
    else:
        logits = y
    return linked(logits.op("Mul", e.number("beta_")), Link("softmax"))


def interpolated(y: Rows, knots: NDArray[np.float64], values: NDArray[np.float64]) -> Rows:
    """Values [N, 1] on the line between the two knots around `y` [N, 1], which is not outside of them.

    The piece is the one that ends at the first knot not below y (scipy.interpolate.interp1d, kind='linear').
    """
    b = y.b
    if not len(knots) or (np.diff(knots) <= 0).any():
        raise Estimator("interpolation", {}, "scikit-learn").broken("knots that do not rise")
    if len(knots) == 1:
        return y.op("Mul", 0.0).op("Add", values[0])
    below = y.number(b.op("Less", b.constant(knots[1:-1], "knots"), y.value), max(len(knots) - 2, 0))
    piece = b.op("Cast", below.total().value, to=7) if len(knots) > 2 else b.op("Cast", y.op("Mul", 0.0).value, to=7)
    slope = np.diff(values) / np.diff(knots)
    first, start, rise = (
        Rows(b, b.op("Gather", b.constant(array, name), piece), 1)
        for array, name in ((knots[:-1], "first"), (values[:-1], "start"), (slope, "slope"))
    )
    return y.op("Sub", first).op("Mul", rise).op("Add", start)
