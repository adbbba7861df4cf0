"""Gradient boosting of scikit-learn's trees: a start, plus the learning rate times the sum, then the link of the loss.

Source: sklearn/ensemble/_gb.py; links in sklearn/_loss/link.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.forest import Forest, Link
from modelhub.graph.forest_onnx import apply_link
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, apply, converts, side_by_side
from modelhub_sklearn.trees import grown, margins, planted

__all__ = ["boosted_trees", "both_classes", "linked"]

CLASSIFIER = "sklearn.ensemble._gb.GradientBoostingClassifier"
REGRESSOR = "sklearn.ensemble._gb.GradientBoostingRegressor"

SLOPES = {"log_loss": 1.0, "deviance": 1.0, "exponential": 2.0}
"""The probability of the second class is sigmoid(slope * margin)."""

LOSSES = ("squared_error", "absolute_error", "huber", "quantile", "ls", "lad")
"""Losses of regression; none has a link."""

EPSILON = float(np.finfo(np.float64).eps)


def linked(y: Rows, link: Link) -> Rows:
    """Rows behind a link of `modelhub.graph.forest`."""
    return Rows(y.b, apply_link(y.b, link, y.value), y.width)


def both_classes(p: Rows) -> Rows:
    """The probability of the second class [N, 1] as those of both."""
    return side_by_side([p.op("Neg").op("Add", 1.0), p])


def _slope(e: Estimator) -> float:
    loss = e.text("loss")
    if loss not in SLOPES:
        raise e.refused(f"the loss {loss[:40]!r} is not known")
    return SLOPES[loss]


@converts("decision_function", CLASSIFIER, decides=True)
def raw(e: Estimator, x: Rows) -> Rows:
    """Margins [N, 1] for two classes, [N, classes] for more."""
    count = len(e.classes)
    return _raw(e, x, 1 if count == 2 else count, _slope(e))


@converts("predict_proba", CLASSIFIER, decides=True)
def classifier(e: Estimator, x: Rows) -> Rows:
    """Sigmoid for two classes, softmax for more."""
    margin = raw(e, x)
    if margin.width > 1:
        return linked(margin, Link("softmax"))
    return both_classes(linked(margin, Link("sigmoid", _slope(e))))


@converts("predict", REGRESSOR, decides=True)
def regressor(e: Estimator, x: Rows) -> Rows:
    """The margin itself."""
    if e.text("loss") not in LOSSES:
        raise e.refused(f"the loss {e.text('loss')[:40]!r} is not known")
    return _raw(e, x, 1, 0.0)


def _raw(e: Estimator, x: Rows, outputs: int, slope: float) -> Rows:
    base, start = _start(e, x, outputs, slope)
    y = margins(e, replace(boosted_trees(e, x.width, outputs), base=base), x)
    return y if start is None else y.op("Add", start)


def boosted_trees(e: Estimator, features: int, outputs: int) -> Forest:
    """The sum of the trees, from 0 on."""
    trees = grown(e, "estimators_", features)
    if len(trees) % outputs or any(tree.values.shape[1:] != (1, 1) for tree in trees):
        raise e.broken(f"{len(trees)} trees for {outputs} outputs")
    return replace(
        planted(trees, [tree.values[:, :, 0] for tree in trees], features),
        tree_output=np.arange(len(trees)) % outputs,
        tree_weight=np.full(len(trees), e.number("learning_rate")),
        base=np.zeros(outputs),
    )


def _start(e: Estimator, x: Rows, outputs: int, slope: float) -> tuple[NDArray[np.float64], Rows | None]:
    """What boosting starts from: the same for all rows [outputs], or what another estimator says, as a margin."""
    start = e.get("init_")
    if start == "zero":
        return np.zeros(outputs), None
    first = e.part("init_")
    classifies = e.name == CLASSIFIER
    if first.name == "sklearn.dummy.DummyRegressor" and not classifies:
        return np.full(outputs, first.number("constant_")), None
    if first.name == "sklearn.dummy.DummyClassifier" and classifies and first.text("strategy") == "prior":
        prior = np.clip(first.array("class_prior_", len(e.classes)), EPSILON, 1 - EPSILON)
        if outputs == 1:
            return np.array([np.log(prior[1] / (1 - prior[1])) / slope]), None
        return np.log(prior / np.exp(np.mean(np.log(prior)))), None
    rounded = x.b.op("Cast", x.b.op("Cast", x.value, to=ir.DataType.FLOAT.value), to=ir.DataType.DOUBLE.value)
    rows = Rows(x.b, rounded, x.width)
    if not classifies:
        return np.zeros(outputs), apply(first, rows, "predict", "init")
    p = apply(first, rows, "predict_proba", "init")
    if p.width != len(e.classes):
        raise e.broken("the estimator it starts from has other classes")
    p = (p.column(1) if outputs == 1 else p).op("Max", EPSILON).op("Min", 1 - EPSILON)
    if outputs == 1:
        return np.zeros(1), p.op("Div", p.op("Neg").op("Add", 1.0)).op("Log").op("Div", slope)
    log = p.op("Log")
    return np.zeros(outputs), log.op("Sub", log.total().op("Div", outputs), width=outputs)
