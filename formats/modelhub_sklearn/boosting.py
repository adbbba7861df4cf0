"""Gradient boosting of scikit-learn's trees: a start, plus the learning rate times the sum, then the link of the loss.

Source: sklearn/ensemble/_gb.py; links in sklearn/_loss/link.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import Forest, Link
from modelhub.graph.forest_onnx import apply_link
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, apply, converts, side_by_side
from modelhub_sklearn.trees import PLAIN, grown, margins, planted

__all__ = ["boosted_trees", "both_classes", "linked", "starts_from_a_model"]

CLASSIFIER = "sklearn.ensemble._gb.GradientBoostingClassifier"
REGRESSOR = "sklearn.ensemble._gb.GradientBoostingRegressor"

SLOPES = {"log_loss": 1.0, "deviance": 1.0, "exponential": 2.0}
"""The probability of the second class is sigmoid(slope * margin)."""

LOSSES = ("squared_error", "absolute_error", "huber", "quantile", "ls", "lad")
"""Losses of regression; none has a link."""

STARTS = tuple(name for name in PLAIN if name.startswith(("sklearn.tree.", "sklearn.ensemble._forest.")))
"""What boosting may start from: models whose answer is the same for rows rounded to float32, which it gives them."""

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
    first = e.attributes.get("init_")
    if isinstance(first, Estimator) and starts_from_a_model(e):
        y = margins(e, boosted_trees(e, x.width, outputs), x)
        return y.op("Add", _predicted_start(e, first, x, outputs, slope))
    return margins(e, replace(boosted_trees(e, x.width, outputs), base=_start(e, outputs, slope)), x)


def starts_from_a_model(e: Estimator) -> bool:
    """Whether the margins begin with logarithms of what another model predicts, which take float64."""
    first = e.attributes.get("init_")
    return e.name in (CLASSIFIER, REGRESSOR) and isinstance(first, Estimator) and first.name in STARTS


def _predicted_start(e: Estimator, first: Estimator, x: Rows, outputs: int, slope: float) -> Rows:
    """What another model predicts, as margins [N, outputs] (_gb.py, _init_raw_predictions)."""
    if e.name != CLASSIFIER:
        return apply(first, x, "predict", "start")
    p = apply(first, x, "predict_proba", "start").op("Max", EPSILON).op("Min", 1 - EPSILON)
    if p.width != len(e.classes):
        raise e.broken("it starts from a model of other classes")
    if outputs == 1:
        p = p.column(1)
        return p.op("Div", p.op("Neg").op("Add", 1.0)).op("Log").op("Div", slope)
    log = p.op("Log")
    return log.op("Sub", log.total().op("Div", float(outputs)))


def boosted_trees(e: Estimator, features: int, outputs: int) -> Forest:
    """The sum of the trees, from 0 on. Gradient boosting refuses NaN: where its nodes would send one says nothing."""
    trees = grown(e, "estimators_", features)
    if len(trees) % outputs or any(tree.values.shape[1:] != (1, 1) for tree in trees):
        raise e.broken(f"{len(trees)} trees for {outputs} outputs")
    forest = planted(trees, [tree.values[:, :, 0] for tree in trees], features)
    return replace(
        forest,
        missing=np.zeros(forest.nodes, np.bool_),
        tree_output=np.arange(len(trees)) % outputs,
        tree_weight=np.full(len(trees), e.number("learning_rate")),
        base=np.zeros(outputs),
    )


def _start(e: Estimator, outputs: int, slope: float) -> NDArray[np.float64]:
    """What boosting starts from, as margins [outputs]: 0, a constant, or the shares of the classes."""
    if e.choice("init_") == "zero":
        return np.zeros(outputs)
    first = e.part("init_")
    classifies = e.name == CLASSIFIER
    if first.name == "sklearn.dummy.DummyRegressor" and not classifies:
        return np.full(outputs, first.number("constant_"))
    if first.name == "sklearn.dummy.DummyClassifier" and classifies and first.text("strategy") == "prior":
        prior = np.clip(first.array("class_prior_", len(e.classes)), EPSILON, 1 - EPSILON)
        if outputs == 1:
            return np.array([np.log(prior[1] / (1 - prior[1])) / slope])
        return np.asarray(np.log(prior) - np.mean(np.log(prior)))
    raise e.refused(
        f"it starts from a {first.short}, which scikit-learn fits and computes in float32; the usual starts "
        "(init=None and 'zero'), trees and forests are supported"
    )
