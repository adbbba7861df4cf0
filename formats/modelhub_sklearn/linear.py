"""Linear models: rows times coefficients plus intercept, then what makes probabilities of it.

Source: sklearn/linear_model/_base.py, _logistic.py, _stochastic_gradient.py.
"""

from __future__ import annotations

import numpy as np

from modelhub.graph.forest import Link
from modelhub_sklearn.boosting import both_classes, linked
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts

__all__ = ["normalised", "sigmoid"]

LINEAR = "sklearn.linear_model."

REGRESSORS = (
    f"{LINEAR}_base.LinearRegression",
    *(f"{LINEAR}_ridge.{name}" for name in ("Ridge", "RidgeCV")),
    *(
        f"{LINEAR}_coordinate_descent.{several}{name}{searched}"
        for several in ("", "MultiTask")
        for name in ("Lasso", "ElasticNet")
        for searched in ("", "CV")
    ),
    *(f"{LINEAR}_least_angle.{name}" for name in ("Lars", "LarsCV", "LassoLars", "LassoLarsCV", "LassoLarsIC")),
    *(f"{LINEAR}_omp.{name}" for name in ("OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV")),
    *(f"{LINEAR}_bayes.{name}" for name in ("BayesianRidge", "ARDRegression")),
    f"{LINEAR}_huber.HuberRegressor",
    f"{LINEAR}_quantile.QuantileRegressor",
    f"{LINEAR}_theil_sen.TheilSenRegressor",
    f"{LINEAR}_passive_aggressive.PassiveAggressiveRegressor",
    f"{LINEAR}_stochastic_gradient.SGDRegressor",
    "sklearn.svm._classes.LinearSVR",
)
LOGISTIC = tuple(f"{LINEAR}_logistic.{name}" for name in ("LogisticRegression", "LogisticRegressionCV"))
RIDGE = tuple(f"{LINEAR}_ridge.{name}" for name in ("RidgeClassifier", "RidgeClassifierCV"))
STOCHASTIC = f"{LINEAR}_stochastic_gradient.SGDClassifier"
CLASSIFIERS = (
    *LOGISTIC,
    STOCHASTIC,
    "sklearn.svm._classes.LinearSVC",
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
    *RIDGE,
    f"{LINEAR}_perceptron.Perceptron",
    f"{LINEAR}_passive_aggressive.PassiveAggressiveClassifier",
)


def _product(e: Estimator, x: Rows) -> Rows:
    """[N, 1] or [N, outputs]."""
    weight = np.atleast_2d(e.array("coef_"))
    if weight.ndim != 2 or weight.shape[1] != x.width:
        raise e.broken(f"coefficients of shape {weight.shape} for {x.width} features")
    bias = e.array("intercept_").reshape(-1)
    if len(bias) not in (1, len(weight)):
        raise e.broken(f"{len(bias)} intercepts for {len(weight)} outputs")
    return x.times(weight.T, bias)


@converts("predict", *REGRESSORS)
def regressor(e: Estimator, x: Rows) -> Rows:
    """Coefficients and intercept."""
    return _product(e, x)


@converts("predict", *(f"{LINEAR}_glm.glm.{name}" for name in ("PoissonRegressor", "GammaRegressor")))
def log_regressor(e: Estimator, x: Rows) -> Rows:
    """Generalised linear models with a logarithmic link (sklearn/linear_model/_glm/glm.py)."""
    return _product(e, x).op("Exp")


@converts("predict", f"{LINEAR}_glm.glm.TweedieRegressor")
def tweedie(e: Estimator, x: Rows) -> Rows:
    """The link is the logarithm, but the identity for powers up to 0, unless it is named."""
    link = e.text("link")
    if link not in ("auto", "log", "identity"):
        raise e.refused(f"the link {link[:20]!r} is not known")
    y = _product(e, x)
    return y.op("Exp") if link == "log" or (link == "auto" and e.number("power") > 0) else y


@converts("decision_function", f"{LINEAR}_stochastic_gradient.SGDOneClassSVM")
def one_class(e: Estimator, x: Rows) -> Rows:
    """Above 0 for what belongs to the class."""
    return x.times(e.array("coef_", x.width)[:, np.newaxis], -e.array("offset_", 1))


@converts("decision_function", *CLASSIFIERS)
def decision(e: Estimator, x: Rows) -> Rows:
    """Distance to the plane of each class, of the second class where there are two."""
    y = _product(e, x)
    count = len(e.classes)
    if y.width != (1 if count == 2 else count) and not (e.name in RIDGE and y.width == count):  # labels, one by one
        raise e.broken(f"{y.width} planes for {count} classes")
    return y


def _multinomial(e: Estimator) -> bool:
    """Whether a logistic regression of two classes has a softmax (until 1.7, multi_class='multinomial')."""
    return e.choice("multi_class") == "multinomial"


def _one_against_rest(e: Estimator) -> bool:
    """Whether every class has its own sigmoid (until 1.7: asked for, or with the solver liblinear)."""
    return e.choice("multi_class") == "ovr" or (
        e.choice("solver") == "liblinear" and e.choice("multi_class") in ("auto", "deprecated", "warn")
    )


def _many_against_rest(e: Estimator) -> bool:
    """Whether probabilities of one class against the others are divided by their sum, which may be tiny."""
    several = e.has("classes_") and len(e.classes) > 2
    return several and (e.name == STOCHASTIC or _one_against_rest(e))


@converts("predict_proba", *LOGISTIC, decides=_many_against_rest)
def logistic(e: Estimator, x: Rows) -> Rows:
    """Sigmoid for two classes, softmax for more."""
    y = decision(e, x)
    if y.width == 1:
        # until 1.7 a multinomial model of two classes took the softmax of -y and y
        return both_classes(linked(y, Link("sigmoid", 2.0 if _multinomial(e) else 1.0)))
    return normalised(sigmoid(y)) if _one_against_rest(e) else linked(y, Link("softmax"))


def sigmoid(y: Rows) -> Rows:
    """exp(y) / (1 + exp(y)), right in all digits also where it is tiny, which onnxruntime's Sigmoid is not."""
    power = y.op("Min", 700.0).op("Exp")
    return power.op("Div", power.op("Add", 1.0))


def normalised(p: Rows) -> Rows:
    """Divided by the sum; equal where the sum is 0."""
    total = p.total()
    none = p.b.op("Equal", total.value, p.b.constant(np.zeros(1), "zero"))
    return p.where(none, np.ones(p.width)).op("Div", total.where(none, np.full(1, float(p.width))))


@converts(
    "predict_proba",
    STOCHASTIC,
    when=lambda e: e.choice("loss") in ("log_loss", "log", "modified_huber"),
    decides=_many_against_rest,
)
def stochastic(e: Estimator, x: Rows) -> Rows:
    """Sigmoid for the logistic loss, a clipped line for modified_huber; normalised for more than two classes."""
    y = decision(e, x)
    if e.text("loss") == "modified_huber":
        p = y.op("Max", -1.0).op("Min", 1.0).op("Add", 1.0).op("Div", 2.0)
    else:
        p = linked(y, Link("sigmoid")) if y.width == 1 else sigmoid(y)
    return both_classes(p) if p.width == 1 else normalised(p)
